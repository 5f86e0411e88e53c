from __future__ import annotations

import asyncio
import math
import threading

import numpy as np
import pytest

from services.router import embedding
from shared import errors
from tests import fake_router_peers


class _Slow(fake_router_peers.HashingEmbedder):
    """Records its batches; the first waits until the test lets it go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.entered, self.gate = threading.Event(), threading.Event()

    def embed(self, texts):
        self.batches.append(list(texts))
        self.threads.add(threading.get_ident())
        self.entered.set()
        self.gate.wait(20)
        if "broken" in texts:
            raise ValueError("broken text")
        return super().embed(texts)


@pytest.fixture
async def slow():
    model = _Slow()
    made = embedding.Embedding(lambda: model)
    await made.start()
    yield model, made
    model.gate.set()
    await made.stop()


async def test_vectors_keep_their_order_when_texts_are_many(slow):
    model, made = slow
    model.gate.set()
    texts = [f"word{n} " * (n % 7 + 1) for n in range(100)]
    vectors = await made.embed(texts)
    assert np.array_equal(vectors, fake_router_peers.HashingEmbedder().embed(texts))
    assert max(len(batch) for batch in model.batches) <= 32
    assert len(model.threads) == 1


async def test_question_goes_before_bulk_when_both_wait(slow):
    model, made = slow
    bulk = asyncio.create_task(made.embed([f"bulk {n}" for n in range(96)]))
    await asyncio.to_thread(model.entered.wait)
    questions = [asyncio.create_task(made.query(f"question {n}")) for n in range(3)]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(bulk, *questions)
    # The bulk batch that had begun, then all questions together, then the rest.
    assert model.batches[1] == ["question 0", "question 1", "question 2"]
    assert len(model.batches) == 4


async def test_few_texts_go_before_bulk_when_both_wait(slow):
    model, made = slow
    bulk = asyncio.create_task(made.embed([f"bulk {n}" for n in range(96)]))
    await asyncio.to_thread(model.entered.wait)
    few = asyncio.create_task(made.embed(["where is it?", "it"]))
    question = asyncio.create_task(made.query("question"))
    await asyncio.sleep(0)
    model.gate.set()
    _, vectors, _ = await asyncio.gather(bulk, few, question)
    assert model.batches[1] == ["where is it?", "it", "question"]
    assert np.array_equal(
        vectors, fake_router_peers.HashingEmbedder().embed(["where is it?", "it"])
    )


async def test_batches_stay_small_when_much_is_urgent(slow):
    model, made = slow
    few = [asyncio.create_task(made.embed([f"{n} {k}" for k in range(3)])) for n in range(40)]
    await asyncio.sleep(0)
    model.gate.set()
    await asyncio.gather(*few)
    assert max(len(batch) for batch in model.batches) <= 32
    assert sum(len(batch) for batch in model.batches) == 120


async def test_model_is_not_asked_again_when_a_question_is_repeated(slow):
    model, made = slow
    model.gate.set()
    first, second = await made.query("again?"), await made.query("again?")
    assert np.array_equal(first, second)
    assert model.batches == [["again?"]]


async def test_model_is_asked_once_when_the_same_question_comes_many_times_at_once(slow):
    model, made = slow
    asked = [asyncio.create_task(made.query("again?")) for _ in range(100)]
    await asyncio.to_thread(model.entered.wait)
    asked[0].cancel()
    model.gate.set()
    found = await asyncio.gather(*asked[1:])
    assert model.batches == [["again?"]]
    assert all(np.array_equal(found[0], vector) for vector in found)


async def test_next_question_is_answered_when_one_failed(slow):
    model, made = slow
    model.gate.set()
    with pytest.raises(errors.InternalError, match="broken text"):
        await made.query("broken")
    assert (await made.query("fine")).shape == (fake_router_peers.DIMENSION,)


async def test_others_are_answered_when_one_question_of_their_batch_fails(slow):
    model, made = slow
    first = asyncio.create_task(made.query("first"))
    await asyncio.to_thread(model.entered.wait)
    asked = [asyncio.create_task(made.query(text)) for text in ("good", "broken", "fine")]
    await asyncio.sleep(0)
    model.gate.set()
    _, good, broken, fine = await asyncio.gather(first, *asked, return_exceptions=True)
    assert model.batches[1] == ["good", "broken", "fine"]
    assert isinstance(broken, errors.InternalError)
    alone = fake_router_peers.HashingEmbedder().embed(["good", "fine"])
    assert np.array_equal([good, fine], alone)


async def test_next_question_is_answered_when_a_failed_one_was_given_up(slow):
    model, made = slow
    given_up = asyncio.create_task(made.embed(["broken", "fine"]))
    await asyncio.to_thread(model.entered.wait)
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    model.gate.set()
    async with asyncio.timeout(20):
        assert (await made.query("fine")).shape == (fake_router_peers.DIMENSION,)


@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_question_is_embedded_again_when_its_vector_was_no_number(slow, monkeypatch, value):
    model, made = slow
    model.gate.set()
    with monkeypatch.context() as spoilt:
        spoilt.setattr(model, "embed", lambda texts: np.full((len(texts), 4), value))
        assert not np.isfinite(await made.query("again?")).all()
    assert np.isfinite(await made.query("again?")).all()
