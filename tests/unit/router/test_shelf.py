from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from services.router import mentions, neighbours, profile, shelf, words
from shared import errors

DIMENSION, CLUSTERS = 64, 150
WORDS = words.Words([f"word{n}" for n in range(3_000)])
RNG = np.random.default_rng(7)
CENTRES = RNG.standard_normal((CLUSTERS, DIMENSION))


@pytest.fixture(autouse=True, params=[150, 10_000], ids=["in clusters", "exactly"])
def limit(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_EXACT_VECTORS", request.param)


def vectors(count: int, seed: int) -> profile.Vectors:
    """Unit vectors around 150 centres, shape (count, 64)."""
    rng = np.random.default_rng(seed)
    apart = rng.standard_normal((count, DIMENSION)) * 0.7
    found = CENTRES[rng.integers(CLUSTERS, size=count)] + apart
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def question(text: str, vector: profile.Vectors) -> profile.Question:
    return profile.Question(text, vector, WORDS.of(text))


def made(name: str, vector: profile.Vectors, text: str = "", digest: str = "d") -> profile.Profile:
    told = text or f"What is {name}?"
    card = profile.Card(name, digest * 64, "testing", "", (told,))
    return profile.build(card, [question(told, vector)])


def filled(cards: profile.Vectors, texts: tuple[str, ...] = ()) -> shelf.Shelf:
    found = shelf.Shelf(DIMENSION, WORDS)
    told = texts or ("the same of all",) * len(cards)
    found.add([made(f"card-{n}", v, told[n]) for n, v in enumerate(cards)], virtual=True)
    return found


def names(found: list[profile.Profile]) -> list[str]:
    return [p.card.name for p in found]


def recall(store: shelf.Shelf, cards: dict[str, profile.Vectors], seed: int) -> float:
    """Share of the ten exactly nearest of some cards that are on the shortlist of 100 questions."""
    known, matrix = list(cards), np.stack(list(cards.values()))
    hits = 0
    for asked in vectors(100, seed):
        exact = {known[n] for n in np.argsort(-(matrix @ asked))[:10]}
        hits += len(exact.intersection(names(store.shortlist(question("", asked)))))
    return hits / 1000


def test_nearest_are_on_the_shortlist_when_compared_with_exact_search():
    cards = vectors(3_000, seed=1)
    store = filled(cards)
    known = {f"card-{n}": v for n, v in enumerate(cards)}
    assert recall(store, known, seed=2) >= 0.98


def test_nearest_are_still_found_when_most_cards_were_replaced_and_removed():
    store = filled(vectors(1_500, seed=1))
    fresh = vectors(1_500, seed=3)
    store.add([made(f"card-{n}", fresh[n], digest="e") for n in range(1_500)], virtual=False)
    store.remove(f"card-{n}" for n in range(0, 1_500, 3))
    known = {f"card-{n}": fresh[n] for n in range(1_500) if n % 3}
    assert len(store) == len(known) == store.examples
    assert recall(store, known, seed=4) >= 0.98
    store.remove(list(known))
    assert (len(store), store.examples, store.sample) == (0, 0, ())
    assert store.shortlist(question("", fresh[0])) == []


def test_card_is_on_the_shortlist_when_it_alone_says_a_rare_word():
    cards = vectors(1_000, seed=1)
    texts = [f"How tall is it, number {n}?" for n in range(1_000)]
    texts[700] = "How tall is the Skarnholm lighthouse?"
    store = filled(cards, tuple(texts))
    far = -cards[700]
    assert "card-700" not in names(store.shortlist(question("How tall is it?", far)))
    assert "card-700" in names(store.shortlist(question("Who built Skarnholm?", far)))


def test_card_is_found_by_a_name_when_another_of_its_texts_has_it_in_lower_case():
    weigher = words.Words("how long tall is the who built gate bridge".split())
    store = shelf.Shelf(DIMENSION, weigher)
    cards = vectors(1_000, seed=1)
    store.add([made(f"card-{n}", vector, "how long is it") for n, vector in enumerate(cards)], True)
    texts = ("How long is the Gate bridge?", "How tall is the gate bridge?")
    told = [profile.Question(text, cards[0], weigher.of(text)) for text in texts]
    store.add([profile.build(profile.Card("bridge", "d" * 64, "", "", texts), told)], virtual=False)
    asked = profile.Question("", -cards[0], weigher.of("Who built the Gate bridge?"))
    assert "bridge" in names(store.shortlist(asked))
    store.remove(["bridge"])
    assert "bridge" not in names(store.shortlist(asked))


def test_card_comes_back_when_its_description_has_half_a_surrogate_pair():
    [vector] = vectors(1, seed=1)
    one = made("skarn", vector)
    odd = dataclasses.replace(one, card=dataclasses.replace(one.card, description="\ud800 tall"))
    store = shelf.Shelf(DIMENSION, WORDS)
    store.add([odd], virtual=False)
    [found] = store.shortlist(question("", vector))
    assert found.card == odd.card


def test_card_that_lies_near_comes_first_when_many_say_the_same_word():
    cards = vectors(1_000, seed=1)
    store = filled(cards, ("All about Skarnholm",) * 1_000)
    asked = question("Who built Skarnholm?", cards[123])
    assert "card-123" in names(store.shortlist(asked))


def test_profile_is_the_same_when_it_comes_back():
    told = vectors(3, seed=1)
    texts = ("How tall is Skarnholm?", "Who built Skarnholm?", "Skarnholm is 40 m tall.")
    known = {text: question(text, vector) for text, vector in zip(texts, told, strict=True)}
    card = profile.Card("skarn", "d" * 64, "towers", "About ü", texts[:2], (texts[2], texts[0]))
    before = profile.build(
        card, [known[t] for t in card.examples], [known[t] for t in card.statements]
    )
    store = shelf.Shelf(DIMENSION, WORDS)
    store.add([before], virtual=True)
    [after] = store.shortlist(known[texts[0]])
    assert (after.card, after.salience) == (card, before.salience)
    assert after.spread == pytest.approx(before.spread, abs=1e-3)
    for field in ("examples", "statements"):
        for one, other in zip(getattr(after, field), getattr(before, field), strict=True):
            assert (one.text, one.words) == (other.text, other.words)
            assert one.vector == pytest.approx(other.vector, abs=1e-3)
    assert store.find("skarn") == shelf.Found(card.identity, virtual=True)
    assert store.find("tarn") is None


def test_new_version_takes_the_place_when_the_name_is_there():
    here, there = vectors(2, seed=1)
    store = shelf.Shelf(DIMENSION, WORDS)
    store.add([made("skarn", here, "All about Skarnholm")], virtual=True)
    store.add([made("skarn", there, "All about Tarnvik", digest="e")], virtual=False)
    assert store.find("skarn") == shelf.Found(f"skarn@{'e' * 64}", virtual=False)
    [found] = store.shortlist(question("What of Skarnholm?", here))
    assert found.card.examples == ("All about Tarnvik",)
    assert len(store) == 1


def test_cards_are_whole_and_the_old_ones_found_when_another_thread_writes():
    lasting, passing = vectors(200, seed=1), vectors(300, seed=2)
    store = shelf.Shelf(DIMENSION, WORDS)
    store.add([made(f"lasting-{n}", v) for n, v in enumerate(lasting)], virtual=False)
    failures: list[Exception] = []

    def write() -> None:
        try:
            for digest in "efgh":
                store.add(
                    [made(f"p-{n}", v, f"of {digest}", digest) for n, v in enumerate(passing)],
                    virtual=True,
                )
                store.remove(f"p-{n}" for n in range(0, 300, 2))
        except Exception as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    asked = 0
    while writer.is_alive() or asked < 200:
        n = asked % 200
        found = store.shortlist(question("", lasting[n]))
        assert f"lasting-{n}" in names(found)
        assert len(set(names(found))) == len(found)
        for one in found:
            if one.card.name.startswith("p-"):
                assert one.card.examples == (f"of {one.card.digest[0]}",)
        asked += 1
    writer.join()
    assert not failures
    assert len(store) == 200 + 150


def test_sample_is_the_same_when_cards_come_in_another_order(monkeypatch):
    monkeypatch.setattr(shelf, "SAMPLE_CARDS", 50)
    cards = [made(f"card-{n}", v) for n, v in enumerate(vectors(400, seed=1))]

    def sampled(store: shelf.Shelf) -> set[str]:
        return set(names(store.load(store.sample)))

    one, other = shelf.Shelf(DIMENSION, WORDS), shelf.Shelf(DIMENSION, WORDS)
    one.add(cards, virtual=False)
    for start in range(400, 0, -40):
        other.add(cards[start - 40 : start], virtual=False)
    assert sampled(one) == sampled(other)
    assert len(sampled(one)) == 50
    gone = sorted(sampled(one))[:20]
    one.remove(gone)
    assert len(sampled(one)) == 50
    assert sampled(one) > sampled(other) - set(gone)
    one.add([card for card in cards if card.card.name in gone], virtual=False)
    assert sampled(one) == sampled(other)


def test_as_many_cards_come_as_are_needed_when_each_has_many_examples():
    centre = vectors(60, seed=1)
    texts = [f"text {n}" for n in range(60)]
    store = shelf.Shelf(DIMENSION, WORDS)
    for n, vector in enumerate(centre):
        card = profile.Card(f"card-{n}", "d" * 64, "", "", tuple(texts))
        store.add([profile.build(card, [question(t, vector) for t in texts])], virtual=False)
    few = store.shortlist(question("", centre[5]))
    many = store.shortlist(question("", centre[5]), least=40)
    assert "card-5" in names(few)
    assert len(few) < 24
    assert len(many) == 40


def test_card_is_refused_and_named_when_its_vectors_are_of_another_dimension():
    store = filled(vectors(3, seed=1))
    with pytest.raises(errors.InvalidInputError, match=r"card odd@.*dimension 8.*dimension 64"):
        store.add([made("odd", np.ones(8, dtype=np.float32))], virtual=False)
    assert store.find("odd") is None


def test_word_tells_nothing_apart_when_too_many_cards_say_it(monkeypatch):
    monkeypatch.setattr(mentions, "_MOST_CARDS", 10)
    said = mentions.Mentions()
    for number in range(30):
        said.add(number, {"common": 2.0, f"own{number}": 2.0, "the": 0.0})
    assert set(said.of({"common": 2.0, "own7": 2.0, "the": 0.0})) == {7}
    assert said.of({"common": 2.0}) == said.of({"the": 2.0}) == {}


def test_rarer_word_is_worth_more_when_cards_share_one_each():
    said = mentions.Mentions()
    for number in range(9):
        said.add(number, {"holm": 1.0} if number else {"skarn": 1.0})
    found = said.of({"holm": 1.0, "skarn": 1.0})
    assert max(found, key=found.__getitem__) == 0
    said.remove(0, {"skarn": 1.0})
    assert 0 not in said.of({"holm": 1.0, "skarn": 1.0})
