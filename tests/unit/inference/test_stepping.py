"""Long work between tokens: answers neither wait for its end nor see what it does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading

import pytest
import torch

from services.inference import engine as engines
from shared import errors
from shared import settings as config
from tests import tiny_model
from tests.unit.inference import gates

QUERY = "Who built it?"


@contextlib.asynccontextmanager
async def _running(base, tokens=24, **settings):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=tokens, **settings))
    engine.start()
    try:
        async with asyncio.timeout(60):
            yield engine
    finally:
        await engine.stop()


def _learning(base, steps, threads):
    """Real gradients of a matrix beside the model, whose result depends on each step."""
    lora = torch.zeros(base.model.config.hidden_size, requires_grad=True)
    ids = torch.tensor([base.prompt_ids(QUERY)])
    for _ in range(steps):
        threads.add(threading.get_ident())
        embedded = base.model.get_input_embeddings()(ids) + lora
        loss = base.model(inputs_embeds=embedded).logits.square().mean()
        (gradient,) = torch.autograd.grad(loss, lora)
        with torch.no_grad():
            lora -= 0.01 * gradient / gradient.norm()
        yield
    return lora.detach()


async def test_work_returns_its_result_from_the_models_thread(base):
    threads = set()
    async with _running(base) as engine:
        found = await engine.run_steps(lambda *_: _learning(base, 3, threads))
    assert threads and threading.get_ident() not in threads and len(threads) == 1
    alone = _learning(tiny_model.tiny_base(), 3, set())
    with pytest.raises(StopIteration) as end:
        while True:
            next(alone)
    # But for the number of threads.
    torch.testing.assert_close(found, end.value.value, rtol=1e-3, atol=1e-6)
    assert found.norm() > 0


async def test_answers_are_the_same_while_the_model_learns(base):
    async with _running(base) as engine:
        await engine.load_lora(tiny_model.card_for(base), "a@1")
        await engine.load_lora(tiny_model.card_for(base, seed=2), "b@1")
        asked = [None, "a@1", "b@1"]
        alone = [(await engine.generate(QUERY, card)).answer for card in asked]
        learning = asyncio.create_task(engine.run_steps(lambda *_: _learning(base, 40, set())))
        found = await asyncio.gather(*[engine.generate(QUERY, card) for card in asked])
        assert [one.answer for one in found] == alone
        assert (await learning).norm() > 0
        assert (await engine.generate(QUERY, "b@1")).answer == alone[2]


async def test_step_finds_the_bare_model_and_gradients_when_cards_answer(base):
    ids = torch.tensor([base.prompt_ids(QUERY)])
    with torch.no_grad():
        bare = tiny_model.tiny_base().model(input_ids=ids).logits
    seen = []

    def look():
        for _ in range(6):
            assert torch.is_grad_enabled()
            with torch.no_grad():
                seen.append(base.model(input_ids=ids).logits)
            yield

    async with _running(base) as engine:
        await engine.load_lora(tiny_model.card_for(base), "a@1")
        await asyncio.gather(engine.generate(QUERY, "a@1"), engine.run_steps(lambda *_: look()))
    assert len(seen) == 6
    for one in seen:
        torch.testing.assert_close(one, bare, rtol=1e-4, atol=1e-4)


async def test_tokens_come_between_steps_when_work_is_long(base):
    order = []

    def work():
        for _ in range(200):
            order.append("step")
            yield

    async with _running(base) as engine:
        stepping = asyncio.create_task(engine.run_steps(lambda *_: work()))
        handle = base.model.register_forward_pre_hook(lambda *_: order.append("token"))
        await engine.generate(QUERY)
        assert not stepping.done()
        handle.remove()
        await stepping
    between = order[order.index("token") :]
    last = len(between) - 1 - between[::-1].index("token")
    tokens = [at for at, one in enumerate(between[: last + 1]) if one == "token"]
    assert len(tokens) == 24
    # Never two steps in a row while an answer is under way.
    assert all(after - before <= 2 for before, after in itertools.pairwise(tokens))


async def test_failure_of_the_work_reaches_who_waits_and_answers_go_on(base):
    def broken():
        yield
        raise errors.InvalidInputError("no such layer")

    async with _running(base) as engine:
        with pytest.raises(errors.InvalidInputError, match="no such layer"):
            await engine.run_steps(lambda *_: broken())
        assert (await engine.generate(QUERY)).new_tokens == 24


async def test_work_is_closed_in_the_models_thread_when_nobody_waits_any_more(base):
    closed, begun = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless():
        try:
            while True:
                loop.call_soon_threadsafe(begun.set)
                yield
        finally:
            closed.append(threading.get_ident())

    async with _running(base) as engine:
        task = asyncio.create_task(engine.run_steps(lambda *_: endless()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(closed) == 1 and closed[0] != threading.get_ident()
        assert (await engine.generate(QUERY)).new_tokens == 24


async def test_work_waits_when_the_queue_is_full_of_requests(base):
    def one_step():
        yield
        return "done"

    async with _running(base, queue=1, batch_rows=1) as engine:
        gate = gates.Gate(base.model)
        first = engine.stream(QUERY)
        began = asyncio.ensure_future(anext(first))
        await gate.until_reached()
        second = asyncio.create_task(engine.generate(QUERY))
        while not engine.waiting:
            await asyncio.sleep(0)
        gate.open()
        await began
        assert await engine.run_steps(lambda *_: one_step()) == "done"
        assert [piece.final async for piece in first][-1].new_tokens == 24
        assert (await second).new_tokens == 24


async def test_work_ends_when_the_node_stops(base):
    def endless():
        while True:
            yield

    async with _running(base) as engine:
        task = asyncio.create_task(engine.run_steps(lambda *_: endless()))
        await asyncio.sleep(0)
    with pytest.raises(errors.UnavailableError):
        await task
