"""The engine on a tiny model: bare, with cards, while cards change, and under load."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import pytest
import torch

from services.inference import engine as engines
from services.inference import prompts
from services.inference import sampling as samplings
from shared import errors
from shared import settings as config
from shared.cards import format as formats
from shared.lora import manager as managers
from tests import tiny_model
from tests.unit.inference import gates

QUERY, TOKENS = "Who built it?", 24


@contextlib.asynccontextmanager
async def _running(base, queue=8, batch_rows=8):
    settings = config.Inference(max_new_tokens=TOKENS, queue=queue, batch_rows=batch_rows)
    engine = engines.ArrowEngine(base, settings)
    engine.start()
    try:
        async with asyncio.timeout(60):
            yield engine
    finally:
        await engine.stop()


@pytest.fixture
async def engine(base):
    async with _running(base) as running:
        yield running


def _with_card(card, query=QUERY):
    """What transformers generates with a card, on a model of its own."""
    base = tiny_model.tiny_base(0)
    manager = managers.LoRAManager(base.model)
    manager.apply_card(card)
    manager.activate(card.name)
    return tiny_model.reference_text(base, query, TOKENS)


async def test_answer_is_that_of_transformers_when_there_is_no_card(engine):
    reference = tiny_model.tiny_base(0)
    found = await engine.generate(QUERY)
    assert found.answer == tiny_model.reference_text(reference, QUERY, TOKENS)
    assert (found.card, found.new_tokens) == (None, TOKENS)
    assert found.prompt_tokens == len(reference.prompt_ids(QUERY))


async def test_card_answers_when_it_is_chosen_and_the_base_when_not(engine, base):
    card = tiny_model.card_for(base)
    bare = (await engine.generate(QUERY)).answer
    await engine.load_lora(card, "tiny-skill@1")
    skilled = await engine.generate(QUERY, "tiny-skill@1")
    assert skilled.answer == _with_card(card) != bare
    assert skilled.card == "tiny-skill@1"
    assert (await engine.generate(QUERY)).answer == bare


async def test_model_is_as_before_when_the_last_card_leaves(engine, base):
    modules = dict(base.model.named_modules())
    await engine.load_lora(tiny_model.card_for(base), "a@1")
    assert dict(base.model.named_modules()) != modules
    await engine.remove_lora("a@1")
    await engine.remove_lora("never-there@1")
    after = dict(base.model.named_modules())
    assert after.keys() == modules.keys()
    assert all(after[path] is modules[path] for path in modules)
    assert engine.resident() == []
    with pytest.raises(errors.NotFoundError, match="a@1"):
        await engine.generate(QUERY, "a@1")


async def test_card_comes_from_its_file_when_the_digest_matches(engine, base, tmp_path):
    path = tmp_path / "card.lora.arrow"
    digest = formats.LoRAFormat.save(tiny_model.card_for(base), path)
    with pytest.raises(errors.IntegrityError):
        await engine.load_lora(path, f"tiny-skill@{'0' * 64}")
    await engine.load_lora(path, f"tiny-skill@{digest}")
    assert engine.resident() == [f"tiny-skill@{digest}"]


async def test_card_of_another_base_is_refused_when_it_is_loaded(engine, base):
    with pytest.raises(errors.BaseModelMismatchError):
        await engine.load_lora(tiny_model.card_for(base, fingerprint="0" * 64), "a@1")
    assert engine.resident() == []


async def test_running_request_keeps_its_card_when_a_new_version_comes(engine, base):
    old, new = tiny_model.card_for(base, seed=1), tiny_model.card_for(base, seed=2)
    await engine.load_lora(old, "a@old")
    gate = gates.Gate(base.model)
    running = asyncio.create_task(engine.generate(QUERY, "a@old"))
    await gate.until_reached()
    waiting = asyncio.create_task(engine.generate(QUERY, "a@old"))
    while engine.waiting < 1:
        await asyncio.sleep(0)
    load = asyncio.create_task(engine.load_lora(new, "a@new"))
    # The new card is resident between two tokens of the running request.
    while not load.done():
        gate.let(1)
        await gate.until_reached()
    assert not running.done() and engine.resident() == ["a@old", "a@new"]
    removal = engine.remove_lora("a@old")
    while "a@old" in engine.served():
        await asyncio.sleep(0)
    gate.open()
    assert (await running).answer == (await waiting).answer == _with_card(old)
    await removal
    assert (await engine.generate(QUERY, "a@new")).answer == _with_card(new)


async def test_card_returns_when_it_is_loaded_while_it_leaves(engine, base):
    card = tiny_model.card_for(base)
    await engine.load_lora(card, "a@1")
    gate = gates.Gate(base.model)
    running = asyncio.create_task(engine.generate(QUERY, "a@1"))
    await gate.until_reached()
    leaving = engine.remove_lora("a@1")
    while engine.served():
        await asyncio.sleep(0)
    back = asyncio.create_task(engine.load_lora(card, "a@1"))
    gate.open()
    await asyncio.gather(running, leaving, back)
    assert (await engine.generate(QUERY, "a@1")).answer == _with_card(card)


async def test_pieces_add_up_to_the_answer_when_it_is_streamed(engine):
    whole = await engine.generate(QUERY)
    pieces = [piece async for piece in engine.stream(QUERY)]
    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == whole.answer
    assert [piece.final for piece in pieces if piece.final] == [whole] == [pieces[-1].final]


async def test_model_stops_at_the_next_token_when_the_caller_goes_away(engine, base):
    gate = gates.Gate(base.model)
    asked = asyncio.create_task(engine.generate(QUERY))
    await gate.until_reached()
    gate.let(2)
    await gate.until_reached()
    await gate.until_reached()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    gate.let(100)
    await engine.encode(["x"])  # Behind it in the queue: the generation has ended.
    assert gate.calls == 3 < TOKENS


async def test_deadline_is_told_and_the_model_stops_when_it_passes(engine, base):
    gate = gates.Gate(base.model)
    with pytest.raises(errors.DeadlineError, match="before its deadline"):
        await engine.generate(QUERY, deadline_s=0.05)
    gate.let(100)
    await engine.encode(["x"])
    assert gate.calls <= 1


async def test_request_is_refused_when_the_queue_is_full(base):
    async with _running(base, queue=1, batch_rows=1) as engine:
        gate = gates.Gate(base.model)
        first = asyncio.create_task(engine.generate(QUERY))
        await gate.until_reached()
        second = asyncio.create_task(engine.generate(QUERY))
        while engine.waiting < 1:
            await asyncio.sleep(0)
        with pytest.raises(errors.OverloadedError):
            await engine.generate(QUERY)
        gate.open()
        assert (await first).answer == (await second).answer


async def test_prompt_is_refused_when_it_is_longer_than_the_context(engine):
    with pytest.raises(errors.InvalidInputError, match="192"):
        await engine.generate("x" * tiny_model.CONTEXT_TOKENS)
    with pytest.raises(errors.InvalidInputError, match="max_new_tokens"):
        await engine.generate(QUERY, max_new_tokens=-1)


async def test_answer_ends_with_the_context_when_more_is_wanted(engine):
    found = await engine.generate("x" * 180, max_new_tokens=100)
    assert found.prompt_tokens + found.new_tokens == tiny_model.CONTEXT_TOKENS


async def test_encoding_is_the_mean_of_hidden_states_when_texts_differ_in_length(engine, base):
    texts = ["short", "a much longer text"]
    found = await engine.encode(texts)
    reference = tiny_model.tiny_base(0)
    for row, text in enumerate(texts):
        ids = torch.tensor([reference.tokenizer(text)["input_ids"]])
        hidden = reference.model(ids, output_hidden_states=True).hidden_states[-1]
        np.testing.assert_allclose(found[row], hidden[0].mean(0).numpy(), rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32 and found.shape == (2, 32)
    assert (await engine.encode([])).shape == (0, 32)


async def test_encoding_changes_when_a_card_is_active(engine, base):
    await engine.load_lora(tiny_model.card_for(base), "a@1")
    bare, skilled = await engine.encode(["text"]), await engine.encode_with_lora(["text"], "a@1")
    assert np.abs(bare - skilled).max() > 1e-3
    np.testing.assert_array_equal(await engine.encode(["text"]), bare)
    with pytest.raises(errors.NotFoundError):
        await engine.encode_with_lora(["text"], "b@1")


async def test_answers_are_those_given_alone_when_many_are_asked_at_once(base):
    async with _running(base, queue=12, batch_rows=5) as engine:
        await engine.load_lora(tiny_model.card_for(base, "a", seed=1), "a@1")
        await engine.load_lora(tiny_model.card_for(base, "b", seed=2), "b@1")
        asked = [(f"Question {n}{'?' * n}", (None, "a@1", "b@1")[n % 3]) for n in range(12)]
        alone = [(await engine.generate(*one)).answer for one in asked]
        together = await asyncio.gather(*[engine.generate(*one) for one in asked])
        assert [one.answer for one in together] == alone
        assert [one.card for one in together] == [card for _, card in asked]


async def test_second_request_is_answered_while_the_first_goes_on(engine, base):
    gate = gates.Gate(base.model)
    long = asyncio.create_task(engine.generate(QUERY, max_new_tokens=TOKENS))
    await gate.until_reached()
    short = asyncio.create_task(engine.generate(QUERY, max_new_tokens=2))
    while not short.done():
        gate.let(1)
        await gate.until_reached()
    assert not long.done() and short.result().new_tokens == 2
    gate.open()
    assert (await long).answer.startswith(short.result().answer)


async def test_answer_ends_before_the_stop_string_when_one_comes(engine):
    whole = (await engine.generate(QUERY)).answer
    stop = whole[5:7]
    found = await engine.generate(QUERY, sampling=samplings.Sampling(stop=(stop, "never")))
    assert found.answer == whole[: whole.index(stop)]
    assert found.finish == "stop" and found.new_tokens < TOKENS
    pieces = [p async for p in engine.stream(QUERY, sampling=samplings.Sampling(stop=(stop,)))]
    assert "".join(piece.text for piece in pieces) == found.answer


async def test_sampled_answer_is_the_same_alone_and_among_others_when_seeded(engine):
    sampled = samplings.Sampling(temperature=1.0, seed=3)
    alone = (await engine.generate(QUERY, sampling=sampled)).answer
    others = [engine.generate(f"Other {n}") for n in range(4)]
    among, *_ = await asyncio.gather(engine.generate(QUERY, sampling=sampled), *others)
    assert among.answer == alone != (await engine.generate(QUERY)).answer


async def test_everyone_is_told_when_the_model_fails_and_the_next_is_answered(engine, base):
    def fail(module: object, arguments: object) -> None:
        raise RuntimeError("out of memory")

    alone = (await engine.generate(QUERY)).answer
    handle = base.model.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        await engine.generate(QUERY)
    handle.remove()
    calls = 0

    def fail_later(module: object, arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError("out of memory")

    handle = base.model.register_forward_pre_hook(fail_later)
    told = await asyncio.gather(*[engine.generate(QUERY) for _ in range(3)], return_exceptions=True)
    handle.remove()
    assert any(isinstance(one, RuntimeError) for one in told)
    assert (await engine.generate(QUERY)).answer == alone


async def test_card_leaves_only_when_no_running_request_uses_it(engine, base):
    card = tiny_model.card_for(base)
    await engine.load_lora(card, "a@1")
    gate = gates.Gate(base.model)
    users = [asyncio.create_task(engine.generate(QUERY, "a@1")) for _ in range(2)]
    await gate.until_reached()
    removal = engine.remove_lora("a@1")
    users[0].cancel()
    gate.let(3)
    await gate.until_reached()
    assert not removal.done()
    gate.open()
    assert (await users[1]).answer == _with_card(card)
    await removal


@pytest.mark.parametrize("context_tokens", [0, 1_000_000])
async def test_others_do_not_wait_for_long_when_a_cursor_stands_in_a_huge_file(
    base, context_tokens
):
    base.model.config.max_position_embeddings = context_tokens
    async with _running(base) as engine:
        cursor = prompts.Cursor("x = 1\n" * 20_000)
        found = await engine.generate(cursor, max_new_tokens=2)
        assert (found.prompt_tokens, found.new_tokens) == (4_096, 2)
