"""Several cards that answer together: their shares, their sum, and their place in memory."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
import torch

from services.inference import answering, mixing
from services.inference import engine as engines
from shared import errors
from shared import settings as config
from shared.lora import tensors
from shared.models import base as bases
from tests import tiny_model

QUERY, TOKENS = "Who built it?", 12
PAIR = (mixing.Share("a@1", 0.6), mixing.Share("b@1", 0.4))
UP_TO_4 = mixing.Together(max_cards=4, least_share=0.25)


class Sources:
    """Cards that can be had again, and how often each was."""

    def __init__(self, base, ranks=(2, 3)) -> None:
        self.cards = {
            f"{name}@1": tiny_model.card_for(base, name, seed=seed, rank=rank)
            for seed, (name, rank) in enumerate(zip("ab", ranks, strict=True), start=1)
        }
        self.got: list[str] = []

    def get(self, key):
        self.got.append(key)
        return self.cards[key]


@contextlib.asynccontextmanager
async def _running(base, sources, **more):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=TOKENS, **more))
    engine.start()
    for key in sources.cards:
        engine.serve_lora(key, functools.partial(sources.get, key))
    try:
        yield engine
    finally:
        await engine.stop()


def _with_sum(base, found, cards):
    """The base with the weighted sum of the cards' changes in its own weights."""
    layers = dict(base.model.named_modules())
    for one in found:
        for path, weights in cards[one.card]:
            adapter = tensors.adapter_of(weights, torch.float32)
            delta = adapter.lora_a @ adapter.lora_b * adapter.scale
            layers[path].weight += one.weight * delta.T
    return base


def _router(*candidates):
    async def route(query, no_learning, deadline_s, tenants=None):
        found = tuple(answering.Candidate(key, p, 0.9, "Who?") for key, p in candidates)
        return answering.Routing(found, 0.1, 0.9)

    return route


@pytest.mark.parametrize(
    ("found", "max_cards", "expected"),
    [
        ([("a", 0.6), ("b", 0.3)], 0, [("a", 0.65), ("b", 0.35)]),
        ([("a", 0.8), ("b", 0.1)], 0, [("a", 1.0)]),
        ([("a", 0.4), ("b", 0.1)], 0, [("a", 0.8), ("b", 0.2)]),
        ([("a", 0.5), ("b", 0.4)], 1, [("a", 1.0)]),
        ([("a", 0.3), ("b", 0.3), ("c", 0.3)], 2, [("a", 0.5), ("b", 0.5)]),
        ([("a", 0.3), ("b", 0.3), ("c", 0.3)], 0, [("a", 0.35), ("b", 0.35), ("c", 0.3)]),
        ([("a", 0.0), ("b", 0.0)], 0, [("a", 1.0)]),
        ([("a", 0.9)], 4, [("a", 1.0)]),
    ],
)
def test_shares_are_as_the_probabilities_when_cards_are_near(found, max_cards, expected):
    shares = mixing.shares(found, UP_TO_4, max_cards)
    assert [(one.card, one.weight) for one in shares] == expected
    assert sum(one.weight for one in shares) == pytest.approx(1.0)


def test_card_answers_alone_when_nobody_says_otherwise():
    assert mixing.shares([("a", 0.5), ("b", 0.4)], mixing.ALONE) == (mixing.Share("a", 1.0),)


def test_shares_have_one_key_when_probabilities_are_about_the_same():
    one, other = ([("a", p), ("b", 0.3)] for p in (0.600, 0.604))
    keys = {mixing.key(mixing.shares(found, UP_TO_4)) for found in (one, other)}
    assert keys == {"0.65 a + 0.35 b"}


@pytest.mark.parametrize("load", [tiny_model.tiny_base, functools.partial(bases.load, "embedded")])
async def test_hidden_states_are_those_of_the_weighted_sum_when_cards_are_mixed(load):
    base = load()
    sources = Sources(base)
    for key, card in sources.cards.items():  # As small as trained ones, so that digits compare.
        sources.cards[key] = _scaled(card, 0.02)
    summed = _with_sum(load(), PAIR, sources.cards)
    async with _running(base, sources) as engine, _running(summed, Sources(base)) as reference:
        key = engine.mix_lora(PAIR)
        mixed = await engine.encode_with_lora([QUERY], key)
        bare, wanted = await engine.encode([QUERY]), await reference.encode([QUERY])
    assert np.abs(wanted - bare).max() > 1e-3
    assert mixed == pytest.approx(wanted, abs=1e-5)


def _scaled(card, factor):
    modules = {path: one._replace(alpha=one.alpha * factor) for path, one in card}
    return type(card)(card.manifest, modules)


async def test_both_cards_answer_when_a_question_is_about_both():
    base, sources = tiny_model.tiny_base(), Sources(tiny_model.tiny_base())
    expected = tiny_model.reference_text(
        _with_sum(tiny_model.tiny_base(), PAIR, sources.cards), QUERY, TOKENS
    )
    async with _running(base, sources) as engine:
        route = _router(("a@1", 0.54), ("b@1", 0.36))
        answers = answering.Answering(engine, route, 0.5, together=UP_TO_4)
        found = await answers.answer(answering.Question(QUERY))
        assert found.generation.answer == expected
        assert found.shares == PAIR
        # Read as a question of one of the cards it would lose the half that is the other's.
        assert found.rewritten_query == ""
        bare = await answers.answer(answering.Question(QUERY, "base"))
        assert bare.shares == () and bare.generation.answer != expected


@pytest.mark.parametrize(
    ("candidates", "max_cards"),
    [((("a@1", 0.85), ("b@1", 0.05)), 0), ((("a@1", 0.5), ("b@1", 0.4)), 1),
     ((("a@1", 0.5), ("gone@1", 0.4)), 0)],
)  # fmt: skip
async def test_best_card_answers_alone_when_no_other_takes_part(base, candidates, max_cards):
    async with _running(base, Sources(base)) as engine:
        answers = answering.Answering(engine, _router(*candidates), 0.5, together=UP_TO_4)
        found = await answers.answer(answering.Question(QUERY, max_cards=max_cards))
        assert found.shares == (mixing.Share("a@1", 1.0),)
        assert found.generation.card == "a@1"
        assert found.rewritten_query == "Who?"


async def test_best_card_answers_alone_when_another_can_not_be_had_again(base):
    async with _running(base, Sources(base)) as engine:
        await engine.load_lora(tiny_model.card_for(base, "c", seed=5), "c@1")
        route = _router(("a@1", 0.5), ("c@1", 0.4))
        answers = answering.Answering(engine, route, together=UP_TO_4)
        found = await answers.answer(answering.Question(QUERY))
        assert found.shares == (mixing.Share("a@1", 1.0),)


@pytest.mark.parametrize(("leaves", "expected"), [("a@1", ()), ("b@1", ("a@1",))])
async def test_question_is_answered_when_a_card_leaves_while_the_mixture_comes(
    base, monkeypatch, leaves, expected
):
    async with _running(base, Sources(base)) as engine:
        bring = engine.bring_lora

        async def bring_and_lose(key, *given):
            await bring(key, *given)
            if " + " in key:
                await engine.remove_lora(leaves)

        monkeypatch.setattr(engine, "bring_lora", bring_and_lose)
        route = _router(("a@1", 0.54), ("b@1", 0.36))
        answers = answering.Answering(engine, route, together=UP_TO_4)
        found = await answers.answer(answering.Question(QUERY))
        assert tuple(one.card for one in found.shares) == expected
        assert found.generation.answer


@pytest.mark.parametrize("max_cards", [-1, 5])
async def test_question_is_refused_when_it_wants_too_many_cards(base, max_cards):
    async with _running(base, Sources(base)) as engine:
        with pytest.raises(errors.InvalidInputError, match="max_cards"):
            await answering.Answering(engine, _router()).answer(
                answering.Question(QUERY, max_cards=max_cards)
            )


async def test_cards_are_merged_once_when_they_are_asked_together_again(base):
    sources = Sources(base)
    async with _running(base, sources) as engine:
        answers = [await engine.generate(QUERY, engine.mix_lora(PAIR)) for _ in range(3)]
        assert sources.got == ["a@1", "b@1"]
        assert len({one.answer for one in answers}) == 1
        assert engine.resident() == [] and engine.served() == ["a@1", "b@1"]
        await engine.generate(QUERY, engine.mix_lora(PAIR[::-1]))
        assert len(sources.got) == 4


async def test_mixture_is_gone_when_one_of_its_cards_goes(base):
    async with _running(base, Sources(base)) as engine:
        key = engine.mix_lora(PAIR)
        await engine.bring_lora(key)
        assert engine.held_bytes > 0
        await engine.remove_lora("b@1")
        assert engine.held_bytes == 0
        with pytest.raises(errors.NotFoundError):
            await engine.generate(QUERY, key)
        with pytest.raises(errors.NotFoundError, match="b@1"):
            engine.mix_lora(PAIR)


async def test_mixture_makes_room_when_others_are_asked_for(base):
    sources = Sources(base, ranks=(2, 2))
    one = sum(
        weights.rank * (weights.in_features + weights.out_features) * 4
        for _, weights in sources.cards["a@1"]
    )
    async with _running(base, sources, card_memory_mib=2.5 * one / 2**20) as engine:
        key = engine.mix_lora(PAIR)
        await engine.bring_lora(key)
        assert engine.held_bytes == 2 * one
        await engine.bring_lora("a@1")
        assert engine.held_bytes == one and engine.resident() == ["a@1"]
        # It is merged anew, from its cards, when it is asked for again.
        await engine.generate(QUERY, engine.mix_lora(PAIR))
        assert sources.got == ["a@1", "b@1", "a@1", "a@1", "b@1"]


async def test_mixtures_do_not_pile_up_when_all_of_them_differ(base):
    async with _running(base, Sources(base)) as engine:
        for part in range(1, 20):
            share = part / 20
            engine.mix_lora((mixing.Share("a@1", share), mixing.Share("b@1", 1 - share)))
        assert len(engine._cards._cards) == 3
