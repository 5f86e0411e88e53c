"""What is kept of a generation, against the model run by hand; and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
import torch

from services.inference import batch, captures, sampling
from services.inference import engine as engines
from shared import errors
from shared import settings as config
from shared.lora import manager as managers
from tests import tiny_model

QUERY, TOKENS = "Who built it?", 9
Q, OUT = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.o_proj"


@contextlib.asynccontextmanager
async def _running(base, tokens=TOKENS):
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=tokens))
    engine.start()
    try:
        async with asyncio.timeout(60):
            yield engine
    finally:
        await engine.stop()


def _matrix(rank=3):
    return torch.randn(32, rank, generator=torch.Generator().manual_seed(4))


def _capture():
    return captures.Capture([Q, OUT], {Q: _matrix()}, top_k=4)


def _hooks(model):
    return sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())


def _inputs(model, ids, path):
    """(tokens, in_features) of a layer, by a hook of the test's own, all positions in one pass."""
    found = []
    layer = model.get_submodule(path)
    handle = layer.register_forward_pre_hook(lambda _, given: found.append(given[0][0]))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    handle.remove()
    return found[0], logits


async def _taken(engine, query, card=None, sampled=True):
    capture = _capture() if sampled else None
    pieces = engine.stream(query, card, sampling=sampling.GREEDY, capture=capture)
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if piece.final is not None:
                return piece.final, capture
    raise AssertionError("no last piece")


def _check(base, taken, tokens=TOKENS):
    """Against one pass over prompt and answer, by a model that knows nothing of captures."""
    prompt, answer = list(taken.prompt), list(taken.answer)
    assert len(answer) == tokens
    where = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
    ids = prompt + answer
    inputs, logits = _inputs(base.model, ids, Q)
    others, _ = _inputs(base.model, ids, OUT)
    top = logits[where].topk(4)
    assert torch.equal(taken.top_ids.long(), top.indices)
    assert taken.top_ids[:, 0].tolist() == answer
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(taken.top_logits, top.values, **close)
    torch.testing.assert_close(taken.log_sums, logits[where].logsumexp(1), **close)
    assert taken.inputs.keys() == {Q, OUT} and taken.activity.keys() == {Q}
    torch.testing.assert_close(taken.inputs[Q], inputs[where].mean(0), **close)
    torch.testing.assert_close(taken.inputs[OUT], others[where].mean(0), **close)
    channels = (inputs[where] @ _matrix()).square().mean(0).sqrt()
    torch.testing.assert_close(taken.activity[Q], channels, **close)


async def test_capture_holds_what_one_pass_over_prompt_and_answer_gives(base):
    async with _running(base) as engine:
        found, capture = await _taken(engine, QUERY)
    assert list(capture.taken().prompt) == base.prompt_ids(QUERY)
    assert found.new_tokens == TOKENS
    _check(tiny_model.tiny_base(), capture.taken())


async def test_each_row_has_its_own_capture_when_rows_are_mixed(base):
    card = tiny_model.card_for(base)
    async with _running(base) as engine:
        await engine.load_lora(card, "card@1")
        asked = [(QUERY, None, True), ("And when, and where?", "card@1", True)]
        asked += [("Why?", None, False), ("How?", None, True)]
        found = await asyncio.gather(*[_taken(engine, *one) for one in asked])
        assert _hooks(base.model) == 0
        alone = [(await _taken(engine, *one))[0].answer for one in asked]
    assert [one.answer for one, _ in found] == alone
    assert found[2][1] is None
    bare, adapted = tiny_model.tiny_base(), tiny_model.tiny_base()
    manager = managers.LoRAManager(adapted.model)
    manager.apply_card(card)
    manager.activate(card.name)
    for at in (0, 3):
        _check(bare, found[at][1].taken())
    # Hooks of the test go on the wrapper there, which gets the same input.
    _check(adapted, found[1][1].taken())


async def test_answer_is_the_same_with_a_capture_as_without(base):
    async with _running(base) as engine:
        plain, _ = await _taken(engine, QUERY, sampled=False)
        kept, _ = await _taken(engine, QUERY)
    assert plain == kept


def _no_hook(*arguments):
    raise AssertionError("a hook was registered for a row that nobody remembers")


def test_no_hook_is_registered_when_no_row_is_remembered(base, monkeypatch):
    rows = batch.Batch(base.model, managers.LoRAManager(base.model))
    monkeypatch.setattr(captures, "_hook", _no_hook)
    row = batch.Row(None, sampling.Sampler(sampling.GREEDY))
    rows.join([row], [base.prompt_ids(QUERY)])
    rows.step()
    row.capture = _capture()
    with pytest.raises(AssertionError, match="a hook was registered"):
        rows.step()


def test_no_hook_stays_when_the_model_fails_in_the_middle(base):
    rows = batch.Batch(base.model, managers.LoRAManager(base.model))
    row = batch.Row(None, sampling.Sampler(sampling.GREEDY), capture=_capture())
    rows.join([row], [base.prompt_ids(QUERY)])
    assert _hooks(base.model) == 0

    def fail(*_):
        raise RuntimeError("no memory")

    handle = base.model.model.layers[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="no memory"):
        rows.step()
    handle.remove()
    assert _hooks(base.model) == 0


async def test_only_the_answer_fails_when_its_probe_names_no_layer(base):
    async with _running(base) as engine:
        pieces = engine.stream(QUERY, capture=captures.Capture(["nowhere"], {}))
        with pytest.raises(errors.NotFoundError, match="nowhere"):
            async for _ in pieces:
                pass
        assert (await engine.generate(QUERY)).new_tokens == TOKENS


def test_capture_that_saw_nothing_says_so():
    with pytest.raises(errors.PreconditionError, match="nothing was generated"):
        captures.Capture([], {}).taken()
