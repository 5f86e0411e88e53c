from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest
import torch

from services.trainer import checkpoint, data, loop
from shared.lora import linear
from shared.lora import manager as managers
from shared.models import base as bases
from tests import tiny_model

KEY = "draft"
SETTINGS = loop.LoopSettings(
    learning_rate=1e-2,
    max_steps=12,
    least_steps=12,
    batch_rows=2,
    replay_rows=2,
    replay_weight=0.5,
    warmup_steps=2,
    clip_norm=1.0,
    question_noise=0.5,
    continued_share=0.3,
    seed=7,
    check_every_steps=3,
)
FACTS = (("Who?", "Ann"), ("Where?", "Rome"), ("When?", "1688"))
REPLAYED = (("Why?", "no"), ("How?", "so"), ("Which?", "it"))


@dataclasses.dataclass
class Training:
    base: bases.BaseModel
    adapters: list[linear.Adapter]
    loop: loop.Loop

    @property
    def weights(self) -> list[torch.Tensor]:
        return [m.detach().clone() for a in self.adapters for m in (a.lora_a, a.lora_b)]


def fresh(facts: tuple[tuple[str, str], ...] = FACTS, **changes: Any) -> Training:
    base = tiny_model.tiny_base()
    manager = managers.LoRAManager(base.model)
    adapters = manager.add_trainable(
        KEY,
        manager.target_paths(("q_proj", "down_proj")),
        rank=4,
        scale=2.0,
        generator=torch.Generator().manual_seed(3),
    )
    manager.activate(KEY)
    training = loop.Loop(
        base.model,
        list(adapters.values()),
        [[data.example(base, *fact)] for fact in facts],
        [data.example(base, *fact) for fact in REPLAYED],
        base.tokenizer.pad_token_id or 0,
        dataclasses.replace(SETTINGS, **changes),
        lambda on: manager.activate(KEY if on else None),
    )
    return Training(base, list(adapters.values()), training)


def test_weights_are_the_same_when_a_training_goes_on_from_its_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    whole = fresh()
    for progress in whole.loop.run():
        last = progress
    killed = fresh()
    saved = checkpoint.Checkpoint(tmp_path / "training.checkpoint")
    for progress in killed.loop.run():
        if progress.step == 6:
            saved.save(killed.loop.state(), seconds=1.0)
        if progress.step == 8:  # The steps since the checkpoint are lost.
            break
    resumed = fresh()
    state = saved.load()
    assert state is not None
    resumed.loop.restore(state)
    steps = list(resumed.loop.run())
    assert [progress.step for progress in steps] == [6, 7, 8, 9, 10, 11, 12]
    assert steps[-1] == last
    for expected, found in zip(whole.weights, resumed.weights, strict=True):
        # On some processors the last bit depends on where tensors lie in memory.
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_training_stays_ended_when_its_last_checkpoint_is_restored(
    tmp_path: pathlib.Path,
) -> None:
    ended = fresh()
    for progress in ended.loop.run():
        last = progress
    saved = checkpoint.Checkpoint(tmp_path / "training.checkpoint")
    saved.save(ended.loop.state(), seconds=1.0)
    resumed = fresh()
    state = saved.load()
    assert state is not None
    resumed.loop.restore(state)
    steps = list(resumed.loop.run())
    assert steps == [dataclasses.replace(last, checked=False)]
    for expected, found in zip(ended.weights, resumed.weights, strict=True):
        assert torch.equal(expected, found)


@torch.no_grad()
def test_the_output_is_unchanged_when_training_has_not_begun() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = tiny_model.tiny_base().model(ids).logits
    training = fresh()
    assert all(not adapter.lora_b.any() for adapter in training.adapters)
    assert all(adapter.lora_a.any() for adapter in training.adapters)
    assert torch.equal(training.base.model(ids).logits, expected)


def test_only_lora_matrices_change_when_a_step_is_trained() -> None:
    training = fresh()
    own = {id(m) for adapter in training.adapters for m in (adapter.lora_a, adapter.lora_b)}
    before = training.weights
    frozen = [
        (parameter, parameter.detach().clone())
        for parameter in training.base.model.parameters()
        if id(parameter) not in own
    ]
    steps = training.loop.run()
    next(steps)
    next(steps)  # While B is zero, A has no gradient.
    for adapter in training.adapters:
        for matrix in (adapter.lora_a, adapter.lora_b):
            assert matrix.grad is not None and matrix.grad.any()
    assert not any(map(torch.equal, before, training.weights))
    for parameter, value in frozen:
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.equal(parameter, value)


def test_loss_falls_when_training_goes_on() -> None:
    training = fresh(max_steps=60, least_steps=60, batch_rows=3)
    losses = [progress.loss for progress in training.loop.run()]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_training_stops_early_but_not_before_least_steps_when_all_is_right() -> None:
    one_fact = (("Who?", "A"),)
    easy = {"max_steps": 60, "question_noise": 0.0, "replay_weight": 0.0, "learning_rate": 3e-2}
    early = list(fresh(one_fact, least_steps=1, **easy).loop.run())
    first = early[-1].step
    assert first < 30 and early[-1].right == 1.0
    late = list(fresh(one_fact, least_steps=first + 7, **easy).loop.run())
    assert first + 7 <= late[-1].step < 60 and late[-1].right == 1.0
    # Measuring takes time, and before `least_steps` nothing depends on it.
    assert all(progress.right is None for progress in late[: first + 6])


def test_checks_come_at_their_interval_and_at_the_end_when_steps_are_used_up() -> None:
    training = fresh(max_steps=7, least_steps=7)
    checked = [progress.step for progress in training.loop.run() if progress.checked]
    assert checked == [3, 6, 7]


def test_labels_are_shifted_and_padding_is_masked_when_examples_are_collated() -> None:
    batch = data.collate(
        [data.Example("", "", (5, 6, 7), (8, 9)), data.Example("", "", (5,), (9,))], pad_id=0
    )
    none = data.IGNORED
    assert batch.input_ids.tolist() == [[5, 6, 7, 8], [5, 0, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch.labels.tolist() == [[none, none, 8, 9], [9, none, none, none]]
    assert batch.labels.dtype == batch.input_ids.dtype == torch.int64


def test_the_answer_ends_with_the_end_token_when_a_pair_is_tokenised() -> None:
    base = tiny_model.tiny_base()
    made = data.example(base, "Who?", "Ann")
    assert base.tokenizer.decode(made.prompt_ids) == "<|user|>Who?<|answer|>"
    assert base.tokenizer.decode(made.answer_ids) == "Ann<|end|>"


def test_weights_are_the_same_when_there_is_no_room_for_the_base_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = fresh()
    list(kept.loop.run())
    monkeypatch.setattr(loop, "_BASE_ANSWERS_FLOATS", 0)
    computed = fresh()
    list(computed.loop.run())
    for expected, found in zip(kept.weights, computed.weights, strict=True):
        assert torch.allclose(expected, found, atol=1e-5)
    free = fresh(replay_weight=0.0)
    list(free.loop.run())
    assert not torch.allclose(free.weights[1], kept.weights[1], atol=1e-3)
