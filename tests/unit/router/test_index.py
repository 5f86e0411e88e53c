from __future__ import annotations

import itertools

import numpy as np
import pytest

from services.router import discriminant, index, profile, space, words


def _question(vector, **weights: float) -> profile.Question:
    return profile.Question("?", np.array(vector, dtype=np.float32), weights)


def _profile(name: str, *examples: profile.Question) -> profile.Profile:
    card = profile.Card(name, "d" * 64, "", "", tuple(e.text for e in examples))
    return profile.build(card, examples)


def test_cosines_are_exact_when_computed_by_hand():
    found = index.Index([_profile("a", *(_question(v) for v in ([1, 0], [0, 1], [0.6, 0.8])))])
    evidence = found.search(_question([0.8, 0.6]))
    assert evidence.nearest == pytest.approx([0.96])
    assert list(evidence.nearest_example) == [2]
    centroid = np.array([1.6, 1.8]) / np.linalg.norm([1.6, 1.8])
    distance = np.linalg.norm(centroid - [0.8, 0.6])
    spread = max(found.profiles[0].spread, 0.5)
    assert evidence.remoteness == pytest.approx([distance / spread], abs=1e-6)


def test_spread_is_the_root_mean_square_distance_when_examples_differ():
    made = _profile("a", _question([1, 0]), _question([0, 1]))
    # Each example lies 45 degrees from the centroid: distance 2 sin(22.5 degrees).
    assert made.spread == pytest.approx(2 * np.sin(np.pi / 8), abs=1e-6)


def test_search_matches_a_plain_loop_when_cards_are_many():
    rng = np.random.default_rng(3)
    cards = [
        _profile(
            f"card-{n}",
            *(_question(profile.unit(rng.normal(size=8))) for _ in range(rng.integers(1, 7))),
        )
        for n in range(25)
    ]
    query = _question(profile.unit(rng.normal(size=8)))
    found = index.Index(cards)
    evidence = found.search(query)
    for at, card in enumerate(found.profiles):
        cosines = sorted((float(e.vector @ query.vector) for e in card.examples), reverse=True)
        assert evidence.nearest[at] == pytest.approx(cosines[0], abs=1e-6)
        nearest = card.examples[evidence.nearest_example[at]]
        assert float(nearest.vector @ query.vector) == pytest.approx(cosines[0], abs=1e-6)


def test_answer_is_the_same_when_cards_come_in_another_order():
    cards = [_profile(n, _question([1, 0], skarn=1.5)) for n in ("b", "c", "a")]
    query = _question([0.6, 0.8], skarn=1.5, tarn=1.0)
    answers = set()
    for order in itertools.permutations(cards):
        grown = index.Index()
        for card in order:
            grown = grown.changed(add=[card])
        evidence = grown.search(query)
        answers.add((tuple(p.identity for p in grown.profiles), evidence.nearest.tobytes()))
    assert len(answers) == 1


def test_cosines_are_zero_when_a_vector_is_zero():
    found = index.Index([_profile("a", _question([0, 0])), _profile("b", _question([1, 0]))])
    evidence = found.search(_question([0, 0]))
    assert list(evidence.nearest) == [0.0, 0.0]
    assert np.isfinite(evidence.remoteness).all()


def test_evidence_is_empty_when_there_are_no_cards():
    assert index.Index().search(_question([1, 0])).nearest.shape == (0,)


def test_others_stay_when_one_card_is_removed():
    both = index.Index([_profile("a", _question([1, 0])), _profile("b", _question([0, 1]))])
    left = both.changed(remove=[both.profiles[0].identity])
    assert [p.card.name for p in left.profiles] == ["b"]
    assert [p.card.name for p in both.profiles] == ["a", "b"]


def test_words_tell_cards_apart_when_vectors_do_not():
    skarn = _profile("skarn", _question([1, 0], skarn=1.5, light=0.4))
    tarn = _profile("tarn", _question([1, 0], tarn=1.5, light=0.4))
    evidence = index.Index([skarn, tarn]).search(_question([1, 0], tarn=1.5, light=0.4))
    assert evidence.anchor == pytest.approx([0.4 / 1.5, 1.0])
    assert evidence.foreign == pytest.approx([1.5, 0.0])
    assert evidence.unexplained == pytest.approx([1.5 / 1.9, 0.0])


@pytest.mark.parametrize(
    ("text", "basic"),
    [("brindlefoxes", "brindlefox"), ("Holm's", "holm"), ("kilns", "kiln"), ("glass", "glass")],
)
def test_words_meet_in_their_basic_form_when_inflected(text: str, basic: str):
    assert list(words.Words(["the"]).of(text)) == [basic]


def test_invented_names_weigh_most_when_the_vocabulary_lacks_them():
    weigher = words.Words([f"w{'a' * n}" for n in range(1, 700)])
    common, rare = "wa", "w" + "a" * 699
    assert weigher.weigh(common) == 0.0
    assert 0.0 < weigher.weigh(rare) <= 1.0 < weigher.weigh("skarnholm")
    assert weigher.weigh("1998") < weigher.weigh("k7")


def test_words_of_statements_are_the_card_s_own_when_examples_lack_them():
    examples = [_question([1, 0], skarn=2.0)]
    statements = [_question([0, 1], pellin=2.0)]
    card = profile.Card("skarn", "d" * 64, "", "", ("?",), ("?",))
    found = index.Index([_profile("tarn", *examples), profile.build(card, examples, statements)])
    evidence = found.search(_question([0.6, 0.8], pellin=2.0))
    places = {p.card.name: at for at, p in enumerate(found.profiles)}
    with_statements, without = places["skarn"], places["tarn"]
    assert evidence.misnamed[with_statements] == 0.0 and evidence.misnamed[without] == 1.0
    assert evidence.shared[with_statements] == 2.0 and evidence.foreign[without] == 2.0
    assert evidence.anchor[with_statements] == 0.0
    assert evidence.said[with_statements] == pytest.approx(0.8)
    assert evidence.said[without] == pytest.approx(evidence.nearest[without])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("How long is the Golden Gate Bridge?", {"golden", "gate", "bridge"}),
        ("Golden! Gate. Bridge?", set()),
        ("Where is the UV lamp that I've lost?", set()),
        ("In `Quendrix` which port is open?", {"quendrix"}),
    ],
)
def test_word_is_a_name_when_it_has_a_capital_within_a_sentence(text: str, names: set[str]):
    found = words.Words(["the"]).of(text)
    assert {word for word, weight in found.items() if weight >= words.NAME_WEIGHT} == names


def test_space_is_searched_as_by_a_plain_loop_when_there_is_one():
    rng = np.random.default_rng(4)
    groups = [rng.normal(size=(rng.integers(1, 7), 8)) + 3 * rng.normal(size=8) for _ in range(25)]
    groups = [np.stack([profile.unit(vector) for vector in group]) for group in groups]
    groups[3] = np.repeat(groups[3][:1], 5, axis=0)  # Examples may be the same to the embedder.
    cards = [_profile(f"{n:02}", *map(_question, group)) for n, group in enumerate(groups)]
    fitted = space.fit(space.sums(groups))
    query = _question(profile.unit(rng.normal(size=8)))
    evidence = index.Index(cards, fitted).search(query)
    direction = fitted.directions(query.vector)
    for at, group in enumerate(groups):
        cosines = sorted(fitted.directions(group) @ direction, reverse=True)
        assert evidence.kin[at] == pytest.approx(np.mean(cosines[:3]), abs=1e-5)
    # What comes later lies in the same space.
    more = index.Index(cards[:-1], fitted).changed(add=cards[-1:])
    assert list(more.search(query).kin) == pytest.approx(list(evidence.kin))
    assert list(index.Index(cards).search(query).kin) == [0.0] * 25


def test_boundary_tells_neighbours_apart_that_share_their_nearest_examples():
    """What differs between two cards is one small coordinate; the rest of it is noise."""
    rng = np.random.default_rng(6)

    def asked(sign: float) -> profile.Question:
        return _question(profile.unit([0.3 * sign, *rng.normal(size=15)]))

    cards = [_profile(n, *(asked(sign) for _ in range(60))) for n, sign in (("a", 1), ("b", -1))]
    vectors = [np.stack([e.vector for e in card.examples]) for card in cards]
    found = index.Index(cards, space.fit(space.sums(vectors), space.sums(vectors)))
    right = {"nearest": 0, "boundary": 0}
    for sign in (1, -1):
        for _ in range(200):
            evidence = found.search(asked(sign))
            for name in right:
                values = getattr(evidence, name)
                right[name] += (values[0] > values[1]) == (sign > 0)
    assert right["boundary"] > right["nearest"] + 20


def test_boundary_is_the_ridge_solution_whichever_problem_is_smaller():
    rng = np.random.default_rng(7)
    for each in (2, 12):  # Fewer examples than dimensions, and more.
        directions = np.stack([profile.unit(v) for v in rng.normal(size=(3 * each, 8))])
        found = discriminant.Discriminants(directions, np.full(3, each))
        query = profile.unit(rng.normal(size=8))
        own = np.arange(3 * each) < each
        weight = np.where(own, 0.5 / each, 0.25 / each)
        x = np.hstack([directions, np.ones((3 * each, 1))]).astype(np.float64)
        ridge = np.diag([1e-3 * (100 / each) ** 0.5] * 8 + [0.0])
        beta = np.linalg.solve((x * weight[:, None]).T @ x + ridge, x.T @ (weight * (2 * own - 1)))
        expected = (beta[:-1] @ query + beta[-1]) * each / (each + 20)
        assert found.of(query)[0] == pytest.approx(expected, abs=1e-4)


def test_card_alone_has_no_boundary():
    found = discriminant.Discriminants(np.eye(3, dtype=np.float32), np.array([3]))
    assert list(found.of(np.ones(3, dtype=np.float32))) == [0.0]


def test_boundaries_of_the_others_stay_when_a_card_comes_and_are_drawn_anew_in_another_space():
    rng = np.random.default_rng(8)
    groups = [
        np.stack([profile.unit(v) for v in rng.normal(size=(6, 8)) + 2 * rng.normal(size=8)])
        for _ in range(6)
    ]
    cards = [_profile(f"{n}", *map(_question, group)) for n, group in enumerate(groups)]
    fitted = space.fit(space.sums(groups), space.sums(groups))
    query = _question(profile.unit(rng.normal(size=8)))
    five, six = index.Index(cards[1:], fitted), index.Index(cards, fitted)
    grown = five.changed(add=cards[:1])
    before, after = five.search(query).boundary, grown.search(query).boundary
    assert list(after[1:]) == pytest.approx(list(before), abs=1e-6)
    assert after[0] == pytest.approx(six.search(query).boundary[0], abs=1e-6)
    assert list(grown.within(fitted).search(query).boundary) == pytest.approx(
        list(six.search(query).boundary), abs=1e-6
    )
    assert list(six.changed(remove=[cards[0].identity]).search(query).boundary) == pytest.approx(
        list(six.search(query).boundary[1:]), abs=1e-6
    )
