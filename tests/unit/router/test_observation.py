from __future__ import annotations

import pytest

from services.router import calibration, index, observation, profile

_NEAREST = calibration.FEATURES.index("nearest")


def _card(name: str, examples) -> profile.Profile:
    card = profile.Card(name, "d" * 64, "", "", tuple(e.text for e in examples))
    return profile.build(card, examples)


@pytest.fixture
def cards(question):
    return [
        _card(name, [question(f"{start} {name}?") for start in ("How tall is", "Who made", "Of")])
        for name in ("Skarnholm", "Tarnhead", "Brindlemere", "Quendrix", "Ostrava", "Pellin")
    ]


def test_example_is_never_compared_with_itself_when_it_is_held_out(cards):
    rows = observation.observe(cards, index.Index, [])
    own = rows.features_N_F[rows.labels_N == 1, _NEAREST]
    expected = [
        max(float(e.vector @ other.vector) for other in card.examples if other is not e)
        for card in cards
        for e in card.examples
    ]
    # Each example but those of the fold in which its card is left out, once.
    assert len(own) > 2 * len(cards)
    assert all(min(abs(value - e) for e in expected) < 1e-6 for value in own)


def test_nothing_is_learned_from_what_is_held_out(cards):
    """What an index is made of has neither the held-out examples nor the cards left out."""
    made: list[set[str]] = []

    def fit(kept) -> index.Index:
        made.append({e.text for card in kept for e in card.examples})
        return index.Index(kept)

    observation.observe(cards, fit, [])
    texts = {e.text for card in cards for e in card.examples}
    assert len(made) == 5
    for known in made:
        left_out = [c for c in cards if not known & {e.text for e in c.examples}]
        assert left_out and known < texts
    assert set.intersection(*made) == set()


def test_every_question_is_unknown_once_when_its_card_is_left_out(cards):
    rows = observation.observe(cards, index.Index, [])
    assert len(set(rows.questions_N[rows.labels_N == 0])) == sum(len(c.examples) for c in cards)


def test_only_example_of_a_card_is_unknown_when_it_is_held_out(question):
    cards = [_card(n, [question(f"What is {n}?")]) for n in ("Skarnholm", "Tarnhead", "Pellin")]
    rows = observation.observe(cards, index.Index, [])
    assert len(rows.labels_N) and rows.labels_N.max() == 0.0


def test_twins_are_no_negatives_when_cards_overlap(question):
    texts = ["How tall is Skarnholm?", "Who built Skarnholm?"]
    twins = [_card(name, [question(text) for text in texts]) for name in ("a", "b")]
    rows = observation.observe(twins, index.Index, [])
    nearest = rows.features_N_F[rows.labels_N == 0, _NEAREST]
    assert not len(nearest) or nearest.max() < 0.9


def test_nothing_is_observed_when_there_are_no_cards(ground):
    assert len(observation.observe([], index.Index, ground.unrelated).labels_N) == 0


def test_practice_has_both_labels_when_no_card_is_known(ground):
    assert set(ground.rows.labels_N) == {0.0, 1.0}
    assert len(ground.rows.contrasts.weights_M)


def test_number_of_questions_is_bounded_when_cards_are_many(question, monkeypatch):
    monkeypatch.setattr(observation, "_QUESTIONS_OF_ALL_CARDS", 60)
    examples = [question(f"How tall is tower {n}?") for n in range(3)]
    for count in (20, 70, 300):
        cards = [_card(f"card-{n:04}", examples) for n in range(count)]
        rows = observation.observe(cards, index.Index, [])
        assert 50 <= len(set(rows.questions_N)) <= 180
