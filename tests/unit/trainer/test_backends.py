"""Backends take the same steps, and leave the base as it was."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from typing import Any

import pytest
import torch

from services.trainer import backends, checkpoint
from services.trainer.backends import own, with_peft
from services.trainer.lean import products
from shared import errors
from shared import settings as config
from shared.models import base as bases
from tests import tiny_model
from tests.unit.trainer import trainings

ALL_SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
BACKENDS = [
    own.Own(),
    own.Own(gradient_checkpointing=True),
    with_peft.Peft(),
    with_peft.Peft(gradient_checkpointing=True),
]
NAMES = ["own", "own, recomputing", "peft", "peft, recomputing"]
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=NAMES)


def half_base() -> bases.BaseModel:
    base = tiny_model.tiny_base()
    base.model.to(torch.bfloat16)
    return base


def curve(backend: backends.Backend, **changes: Any) -> tuple[list[float], list[torch.Tensor]]:
    """Losses of all steps, and the matrices at the end."""
    with trainings.opened(backend=backend, **({"kinds": ALL_SEVEN} | changes)) as training:
        losses = [progress.loss for progress in training.loop.run()]
        return losses, trainings.weights(training)


@pytest.mark.parametrize("backend", BACKENDS[1:], ids=NAMES[1:])
def test_losses_and_weights_are_those_of_the_own_loop_when_another_backend_trains(
    backend: backends.Backend,
) -> None:
    losses, weights = curve(own.Own())
    other_losses, other_weights = curve(backend)
    assert losses[-1] < 0.9 * losses[0]
    assert other_losses == pytest.approx(losses, rel=1e-3)
    for expected, found in zip(weights, other_weights, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("widen", [True, False])
def test_losses_are_those_of_peft_when_the_base_is_in_bfloat16(
    widen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        products.Products, "best_for", classmethod(lambda cls, _: products.Products(widen))
    )
    steady = {"question_noise": 0.0, "learning_rate": 1e-3}
    losses, weights = curve(own.Own(), base=half_base(), **steady)
    expected, _ = curve(with_peft.Peft(), base=half_base(), **steady)
    assert losses == pytest.approx(expected, rel=0.02)
    assert all(one.dtype == torch.float32 for one in weights)


def test_each_layer_has_its_own_rank_when_peft_trains() -> None:
    work = trainings.work(kinds=ALL_SEVEN)
    ranks = {path: 1 + at % 5 for at, path in enumerate(work.ranks)}
    found = []
    for backend in (own.Own(), with_peft.Peft()):
        with backend.open(dataclasses.replace(work, ranks=ranks)) as training:
            found.append([progress.loss for progress in training.loop.run()])
            adapters = training.adapters()
        assert {path: one.rank for path, one in adapters.items()} == ranks
        assert {one.scale for one in adapters.values()} == {2.0}
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@each_backend
def test_the_base_is_bit_identical_when_a_training_is_over(backend: backends.Backend) -> None:
    base = tiny_model.tiny_base()
    modules = dict(base.model.named_modules())
    weights = {name: one.clone() for name, one in base.model.state_dict().items()}
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        logits = base.model(ids).logits
    with trainings.opened(backend=backend, base=base, kinds=ALL_SEVEN) as training:
        list(training.loop.run())
    assert dict(base.model.named_modules()) == modules
    assert not base.model.training and not any(p.requires_grad for p in base.model.parameters())
    state = base.model.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], one) for name, one in weights.items())
    assert bases.fingerprint(base.model) == base.fingerprint
    with torch.no_grad():
        assert torch.equal(base.model(ids).logits, logits)


@each_backend
def test_the_base_is_whole_again_when_a_training_fails(backend: backends.Backend) -> None:
    base = tiny_model.tiny_base()
    modules = dict(base.model.named_modules())
    with pytest.raises(KeyError), trainings.opened(backend=backend, base=base):
        raise KeyError
    assert dict(base.model.named_modules()) == modules


@each_backend
def test_weights_are_equal_when_the_seed_is(backend: backends.Backend) -> None:
    losses, weights = curve(backend)
    again, same = curve(backend)
    assert again == losses and all(map(torch.equal, weights, same))
    other, different = curve(backend, seed=8)
    assert other != losses and not torch.equal(weights[0], different[0])


@each_backend
def test_a_backend_goes_on_where_its_checkpoint_was_taken(
    backend: backends.Backend, tmp_path: pathlib.Path
) -> None:
    _, whole = curve(backend)
    saved = checkpoint.Checkpoint(tmp_path / "training.checkpoint")
    with trainings.opened(backend=backend, kinds=ALL_SEVEN) as killed:
        for progress in killed.loop.run():
            if progress.step == 5:
                saved.save(killed.loop.state(), 1.0)
                break
    state = saved.load()
    with trainings.opened(backend=backend, kinds=ALL_SEVEN) as resumed:
        assert state is not None and resumed.loop.fits(state)
        resumed.loop.restore(state)
        list(resumed.loop.run())
        for expected, found in zip(whole, trainings.weights(resumed), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_the_checkpoint_of_another_backend_is_not_taken() -> None:
    with trainings.opened(backend=own.Own()) as one:
        next(one.loop.run())
        state = one.loop.state()
    with trainings.opened(backend=with_peft.Peft()) as other:
        assert not other.loop.fits(state)


def test_losses_are_the_same_when_frozen_lower_layers_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steady = {"question_noise": 0.0, "from_layer": 1}
    kept, weights = curve(own.Own(), **steady)
    # PEFT computes all layers at every step.
    assert kept == pytest.approx(curve(with_peft.Peft(), **steady)[0], rel=1e-3)
    assert len(weights) == 2 * len(ALL_SEVEN)
    monkeypatch.setattr("services.trainer.lean.network._KEPT_STATES_BYTES", 0)
    assert curve(own.Own(), **steady)[0] == pytest.approx(kept, rel=1e-4)


def test_lower_layers_are_computed_once_for_each_row_when_they_are_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[int, ...]] = []
    with trainings.opened(from_layer=1, continued_share=0.0, kinds=ALL_SEVEN) as training:
        net: Any = training.loop._net
        lower = net.lower
        monkeypatch.setattr(
            net, "lower", lambda ids: (seen.extend(map(tuple, ids.tolist())), lower(ids))[1]
        )
        list(training.loop.run())
    questions = len(trainings.FACTS) + len(trainings.REPLAYED)
    assert len(seen) == questions


@pytest.mark.parametrize("layer", [2, 9])
def test_the_number_of_layers_is_named_when_the_model_has_not_so_many(layer: int) -> None:
    with (
        pytest.raises(errors.ConfigError, match="2 decoder layers"),
        trainings.opened(from_layer=layer, kinds=ALL_SEVEN),
    ):
        pass


def test_the_output_layer_is_trained_when_it_is_a_target() -> None:
    work = trainings.work()
    work = dataclasses.replace(work, ranks={"lm_head": 4} | dict(work.ranks))
    found = []
    for backend in (own.Own(), with_peft.Peft()):
        with backend.open(work) as training:
            found.append([progress.loss for progress in training.loop.run()])
            assert training.adapters()["lm_head"].lora_b.any()
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_the_model_is_as_before_when_peft_fails_after_it_has_adapted_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work, backend = trainings.work(), with_peft.Peft()
    model = work.base.model
    before = dict(model.named_modules())
    make = backend._peft.get_peft_model

    def fails(*given: Any) -> None:
        make(*given)
        raise RuntimeError("no memory")

    monkeypatch.setattr(backend._peft, "get_peft_model", fails)
    with pytest.raises(RuntimeError, match="no memory"), backend.open(work):
        pass
    assert dict(model.named_modules()) == before
    assert not any(one.requires_grad for one in model.parameters())


def test_the_settings_name_the_backend() -> None:
    assert isinstance(backends.chosen(config.Trainer()), own.Own)
    assert isinstance(backends.chosen(config.Trainer(backend="peft")), with_peft.Peft)


def test_the_message_says_how_to_get_peft_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(errors.ConfigError, match=r"pip install '\.\[peft\]'"):
        backends.chosen(config.Trainer(backend="peft"))


def test_the_message_says_what_unsloth_needs_when_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(errors.ConfigError, match="NVIDIA GPU"):
        backends.chosen(config.Trainer(backend="unsloth"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "unsloth", None)
    with pytest.raises(errors.ConfigError, match="pip install unsloth"):
        backends.chosen(config.Trainer(backend="unsloth"))
