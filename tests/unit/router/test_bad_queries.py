"""What is wrong with questions, cards and vectors is said, or none fits; nothing breaks."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import numpy as np
import pytest

from services.router import admission, profile, router, words
from shared import errors
from tests import fake_routers

SKARN, TARN = "the Skarnholm lighthouse", "the Tarnvik viaduct"
QUERY = f"Which height has {SKARN}?"


class Embedder:
    """The fake one, which may be told to fail at texts with a word."""

    def __init__(self) -> None:
        self.spoilt = {}
        self.asked: list[str] = []

    async def embed(self, texts):
        self.asked += texts
        vectors = fake_routers.EMBEDDER.embed(texts)
        for row, text in enumerate(texts):
            for word, value in self.spoilt.items():
                if word in text:
                    vectors[row, 3] = value
        return vectors

    async def query(self, text):
        return (await self.embed([text]))[0]


@pytest.fixture
def embedder():
    return Embedder()


@pytest.fixture
async def two(embedder, ground):
    return await _two(embedder, ground)


@pytest.fixture(scope="module")
def kept(ground):
    """One for all tests that only ask: fitting takes a moment."""
    return asyncio.run(_two(Embedder(), ground))


async def _two(embedder, ground):
    weigher = words.Words(fake_routers.EMBEDDER.vocabulary())
    made = router.LoRARouter(embedder.query, embedder.embed, weigher, ground, 0.4)
    about = fake_routers.card_about
    await made.register_cards([about("skarn", SKARN), about("tarn", TARN)])
    await made.settled()
    return made


@pytest.mark.parametrize(
    "query",
    ["", "   ", "\n\t\r", "\u2003", "x" * 8_001, "word " * 20_000, "\ud800", f"{QUERY} \udfff",
     None, b"How tall is it?", 7],
    ids=repr,
)  # fmt: skip
async def test_query_is_refused_when_it_is_no_question(kept, monkeypatch, query):
    monkeypatch.setattr(kept, "_embed_query", None)  # A batch with it would fail for others, too.
    for call in (kept.select, kept.explain):
        with pytest.raises(errors.InvalidInputError, match="query"):
            await call(query)


@pytest.mark.parametrize(
    "query",
    ["\x00", "\x01\x02\x1b\x07", "\u200b\u200d\ufeff", "🎉🎉🎉", "?!", "…—", "<>{}[]()",
     "\u0301" * 50],
    ids=repr,
)  # fmt: skip
async def test_none_fits_when_a_query_has_no_words(kept, query):
    decision = await kept.select(query, top_k=5)
    assert decision.dissonance
    assert (decision.candidates, decision.confidence, decision.none_probability) == ((), 0.0, 1.0)


@pytest.mark.parametrize(
    "query",
    ["普洛维克大桥有多长?", "Какова высота моста?", "ما هو طول الجسر", "x" * 8_000, "7 " * 4_000,
     "Wie hoch ist die Brücke, s'il vous plaît?", "'; DROP TABLE cards; --", "\x00a\x00b\x00"],
    ids=lambda query: query[:12],
)  # fmt: skip
async def test_none_fits_when_a_query_is_about_nothing_that_is_known(kept, query):
    decision = await kept.select(query)
    assert decision.dissonance and 0.0 <= decision.confidence < 0.4


@pytest.mark.parametrize(
    "query",
    [f"{QUERY} 🎉", f"\x00{QUERY}\x07", QUERY.replace(" ", "\n\n"), f"  {QUERY}\u200b",
     f"Bonjour! {QUERY} 谢谢"],
    ids=repr,
)  # fmt: skip
async def test_card_is_found_when_its_question_stands_among_other_signs(kept, query):
    decision = await kept.select(query)
    assert decision.candidates[0].card.startswith("skarn@")
    assert not decision.dissonance


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("top_k", (0, -1, -(10**12), 1_001, 10**12, 1.5, "2")),
        ("threshold", (math.nan, math.inf, -math.inf, -0.01, 1.01, 1e300, "0.4")),
    ],
)
async def test_argument_is_named_when_it_is_out_of_range(kept, argument, values):
    for value in values:
        for call in (kept.select, kept.explain):
            with pytest.raises(errors.InvalidInputError, match=argument):
                await call(QUERY, **{argument: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_question_is_refused_when_its_vector_is_no_number(two, embedder, value):
    embedder.spoilt = {"Spoilt": value}
    with pytest.raises(errors.InternalError, match="question"):
        await two.select("How tall is Spoilt?")
    assert (await two.select(QUERY)).candidates[0].card.startswith("skarn@")


async def test_other_cards_come_in_when_the_vectors_of_one_are_no_numbers(
    two, embedder, card_about
):
    embedder.spoilt = {"Spoilt": math.nan}
    with pytest.raises(errors.InternalError, match="'bad'"):
        await two.register_cards([card_about("bad", "Spoilt"), card_about("good", "Alvmere")])
    assert [card.split("@")[0] for card in two.cards] == ["good", "skarn", "tarn"]
    await two.settled()
    assert (await two.select("Which height has Alvmere?")).candidates[0].card.startswith("good@")


async def test_other_cards_come_in_when_the_embedder_fails_at_one(
    two, embedder, card_about, monkeypatch
):
    async def failing(texts):
        if any("Spoilt" in text for text in texts):
            raise errors.InternalError("embedding failed: spoilt text")
        return await embedder.embed(texts)

    monkeypatch.setattr(two, "_embed", failing)
    with pytest.raises(errors.InternalError, match="spoilt text"):
        await two.register_cards([card_about("bad", "Spoilt"), card_about("good", "Alvmere")])
    assert [card.split("@")[0] for card in two.cards] == ["good", "skarn", "tarn"]


async def test_version_before_is_kept_when_the_vectors_of_the_next_are_no_numbers(
    two, embedder, card_about
):
    embedder.spoilt = {"Spoilt": math.nan}
    with pytest.raises(errors.InternalError):
        await two.register_card(card_about("skarn", "Spoilt", "2"))
    assert card_about("skarn", SKARN).identity in two.cards
    embedder.spoilt = {}
    await two.register_card(card_about("skarn", "Spoilt", "2"))
    assert card_about("skarn", "Spoilt", "2").identity in two.cards


@pytest.mark.parametrize("shape", [(48,), (96, 1), ()])
async def test_nothing_is_compared_when_the_dimension_has_changed(
    two, embedder, card_about, monkeypatch, shape
):
    async def other(texts):
        return np.ones((len(texts), *shape), dtype=np.float32)

    monkeypatch.setattr(embedder, "embed", other)
    monkeypatch.setattr(two, "_embed", other)
    with pytest.raises(errors.InternalError, match="shape"):
        await two.select(QUERY)
    before = two.cards
    with pytest.raises(errors.InternalError, match="shape"):
        await two.register_card(card_about("third", "Alvmere"))
    assert two.cards == before


@pytest.mark.parametrize("examples", [(), ("",), (" \n", "\t"), ("\ud800 tall",)], ids=repr)
async def test_card_is_refused_when_it_has_nothing_to_compare_with(two, examples, card_about):
    card = dataclasses.replace(card_about("bad", "Spoilt"), examples=examples)
    with pytest.raises(errors.InvalidInputError, match="'bad'"):
        await two.register_cards([card, card_about("good", "Alvmere")])
    assert [one.split("@")[0] for one in two.cards] == ["good", "skarn", "tarn"]


async def test_card_is_known_by_its_other_examples_when_some_are_unreadable(two, card_about):
    card = card_about("good", "Alvmere")
    told = (*card.examples, "", "half a \udfff pair", " ")
    await two.register_card(dataclasses.replace(card, examples=told, statements=("\ud800",)))
    await two.settled()
    decision = await two.select("Which height has Alvmere?")
    assert decision.candidates[0].card == card.identity and not decision.dissonance


async def test_no_more_than_a_thousand_examples_are_embedded_when_a_card_has_a_million(
    two, embedder, card_about
):
    card = card_about("many", "Alvmere")
    asked = len(embedder.asked)
    told = [f"How tall is Alvmere number {n}?" for n in range(1_000_000)]
    await two.register_card(dataclasses.replace(card, examples=tuple(told)))
    taken = embedder.asked[asked:]
    assert taken == told[::1_000]
    assert (await two.select("How tall is Alvmere?")).candidates[0].card == card.identity


async def test_an_example_is_read_as_far_as_questions_go_when_it_has_ten_megabytes(
    two, embedder, card_about
):
    card = card_about("long", "Alvmere")
    asked = len(embedder.asked)
    long = "How tall is Alvmere? " * 500_000
    await two.register_card(dataclasses.replace(card, examples=(*card.examples, long)))
    assert max(map(len, embedder.asked[asked:])) == admission.LONGEST_QUERY_CHARACTERS
    assert (await two.select("How tall is Alvmere?")).candidates[0].card == card.identity


async def test_cards_share_the_probability_when_their_examples_are_identical(two, card_about):
    await two.register_cards([card_about("one", "Alvmere"), card_about("other", "Alvmere")])
    await two.settled()
    decision = await two.select("Which height has Alvmere?", top_k=2)
    first, second = decision.candidates
    assert {first.card.split("@")[0], second.card.split("@")[0]} == {"one", "other"}
    assert first.probability == pytest.approx(second.probability)
    assert first.probability + second.probability == pytest.approx(decision.confidence, abs=0.01)
    assert (await two.explain("Which height has Alvmere?")).lead == pytest.approx(0.0)


async def test_last_version_counts_when_a_name_is_given_twice(two, card_about):
    versions = [card_about("skarn", thing, str(n)) for n, thing in enumerate((SKARN, "Alvmere"))]
    await two.register_cards([*versions, versions[1]])
    assert [one for one in two.cards if one.startswith("skarn@")] == [versions[1].identity]


async def test_virtual_candidate_is_refused_when_its_description_can_not_be_read(two):
    with pytest.raises(errors.InvalidInputError, match="'far'"):
        await two.register_virtual_candidate("far", "a" * 64, "\ud800")
    assert not fake_routers.names(two, virtual=True)


def test_texts_are_cut_and_chosen_evenly_when_there_are_too_many():
    card = profile.Card("c", "d", "", "", ("x",), tuple(map(str, range(2_500))))
    taken = admission.readable(card).statements
    assert taken == tuple(map(str, range(0, 2_500, 3)))
