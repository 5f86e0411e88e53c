"""What goes wrong with one answer, card or caller stays there."""

from __future__ import annotations

import asyncio

import pytest
import torch

from services.inference import answering, sampling
from services.inference import engine as engines
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.lora import linear, tensors
from tests import tiny_model

TOKENS = 24


@pytest.fixture
async def engine(base):
    made = engines.ArrowEngine(base, config.Inference(max_new_tokens=TOKENS))
    made.start()
    yield made
    await made.stop()


async def _with_neighbours(engine, request):
    """A request that fails, between two that begin before and two that come with it."""
    before = [asyncio.create_task(engine.generate(f"early {n}")) for n in range(2)]
    pieces = engine.stream("early watcher")
    await anext(pieces)
    asked = asyncio.gather(
        *[engine.generate(f"late {n}") for n in range(2)], request, return_exceptions=True
    )
    *late, failed = await asked
    found = [*await asyncio.gather(*before), *late]
    await pieces.aclose()
    assert [one.new_tokens for one in found] == [TOKENS] * 4
    return failed


@pytest.mark.parametrize("temperature", [1e-40, 1.36e-38, 1e-4])
async def test_likeliest_tokens_come_when_it_is_colder_than_scores_can_be(engine, temperature):
    cold = engine.generate("Who?", sampling=sampling.Sampling(temperature=temperature, seed=1))
    found = await _with_neighbours(engine, cold)
    assert found == await engine.generate("Who?")


async def test_others_go_on_when_a_card_gives_no_finite_scores(engine, base):
    card = tiny_model.card_for(base)
    modules = {}
    for path, weights in card:
        huge = linear.Adapter(
            torch.full((weights.in_features, 1), 3e38),
            torch.full((1, weights.out_features), 3e38),
            1.0,
        )
        modules[path] = tensors.weights_of(huge, 1.0, "float32")
    await engine.load_lora(cards.LoRACard(card.manifest, modules), "a@1")
    failed = await _with_neighbours(engine, engine.generate("Who?", "a@1"))
    assert isinstance(failed, errors.PreconditionError)
    assert "not finite" in str(failed)


async def test_others_go_on_when_the_text_of_one_can_not_be_made(engine, base, monkeypatch):
    decode, bad = base.tokenizer.decode, base.prompt_ids("doomed")
    calls = 0

    def failing(ids, *arguments, **options):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OverflowError("out of range")
        return decode(ids, *arguments, **options)

    monkeypatch.setattr(base.tokenizer, "decode", failing)
    found = await asyncio.gather(
        *[engine.generate(f"question {n}") for n in range(3)], return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in found) == [
        "Generation",
        "Generation",
        "OverflowError",
    ]
    assert bad and (await engine.generate("next")).new_tokens == TOKENS


async def test_everyone_is_told_and_the_next_answered_when_a_row_can_not_leave(
    engine, base, monkeypatch
):
    leave = engine._generations._batch.leave
    calls = 0

    def failing(row):
        nonlocal calls
        calls += 1
        if calls == 1:
            raise MemoryError("no memory for the cache")
        leave(row)

    monkeypatch.setattr(engine._generations._batch, "leave", failing)
    found = await asyncio.gather(
        *[engine.generate(f"question {n}") for n in range(3)], return_exceptions=True
    )
    assert [type(one) for one in found] == [MemoryError] * 3
    assert (await engine.generate("next")).new_tokens == TOKENS


@pytest.mark.parametrize("turns", range(8))
async def test_model_holds_what_is_accounted_for_when_a_card_comes_and_goes_at_once(
    engine, base, turns
):
    card = tiny_model.card_for(base)
    for first, second in (("load", "remove"), ("remove", "load")):
        await engine.load_lora(card, "a@1", lambda: card)
        if first == "load":
            await engine.remove_lora("a@1")
        begun = _begin(engine, first, card)
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.gather(begun, _begin(engine, second, card))
        assert engine.served() == engine.resident() == engine._manager.list_cards()
        assert bool(engine.held_bytes) == bool(engine.resident())
        assert second == "remove" or engine.served() == ["a@1"]


def _begin(engine, what, card):
    if what == "remove":
        return engine.remove_lora("a@1")
    return asyncio.ensure_future(engine.load_lora(card, "a@1", lambda: card))


async def test_card_is_nowhere_when_who_loads_it_gives_up(engine, base):
    load = asyncio.create_task(engine.load_lora(tiny_model.card_for(base), "a@1"))
    await asyncio.sleep(0)
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await load
    while engine.held_bytes or engine._manager.list_cards():
        await asyncio.sleep(0)
    assert engine.served() == engine.resident() == []


async def test_answers_go_on_when_others_encode_all_the_time(engine):
    async def encode_for_ever():
        while True:
            await engine.encode(["some text"] * 4)

    busy = [asyncio.create_task(encode_for_ever()) for _ in range(3)]
    assert (await engine.generate("Who?")).new_tokens == TOKENS
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)


async def test_deadline_is_one_for_router_card_and_answer(engine, base):
    async def slow_route(query, no_learning, deadline_s, tenant):
        await asyncio.sleep(0.2)
        return answering.Routing((answering.Candidate("a@1", 0.9),), 0.1, 0.9)

    card = tiny_model.card_for(base)
    await engine.load_lora(card, "a@1", lambda: card)
    asked = []
    stream = engine.stream

    def seen(query, card, most, deadline_s, *rest):
        asked.append(deadline_s)
        return stream(query, card, most, deadline_s, *rest)

    engine.stream = seen
    answers = answering.Answering(engine, slow_route)
    await answers.answer(answering.Question("Who?", deadline_s=20.0))
    assert 0 < asked[0] <= 19.8
    with pytest.raises(errors.DeadlineError, match="before its deadline"):
        await answers.answer(answering.Question("Who?", deadline_s=0.1))


async def test_timeout_of_a_source_is_told_as_it_is(engine, base):
    def slow_disk():
        raise TimeoutError("the disk")

    engine._cards.add("a@1", slow_disk)
    engine._cards.serve("a@1")
    with pytest.raises(TimeoutError, match="the disk"):
        await engine.generate("Who?", "a@1")
    with pytest.raises(TimeoutError, match="the disk"):
        await engine.generate("Who?", "a@1", deadline_s=30.0)
