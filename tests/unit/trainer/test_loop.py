from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest
import torch

from services.trainer import checkpoint, data, loop
from tests import tiny_model
from tests.unit.trainer import trainings


def run(
    facts: tuple[tuple[str, str], ...] = trainings.FACTS, **changes: Any
) -> list[loop.Progress]:
    """All steps of a training."""
    with trainings.opened(facts, **changes) as training:
        return list(training.loop.run())


def trained(**changes: Any) -> list[torch.Tensor]:
    """The matrices at the end of a training."""
    with trainings.opened(**changes) as training:
        list(training.loop.run())
        return trainings.weights(training)


def test_weights_are_the_same_when_a_training_goes_on_from_its_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    with trainings.opened() as whole:
        last = list(whole.loop.run())[-1]
        expected = trainings.weights(whole)
    saved = checkpoint.Checkpoint(tmp_path / "training.checkpoint")
    with trainings.opened() as killed:
        for progress in killed.loop.run():
            if progress.step == 6:
                saved.save(killed.loop.state(), seconds=1.0)
            if progress.step == 8:  # The steps since the checkpoint are lost.
                break
    state = saved.load()
    assert state is not None
    with trainings.opened() as resumed:
        resumed.loop.restore(state)
        steps = list(resumed.loop.run())
        found = trainings.weights(resumed)
    assert [progress.step for progress in steps] == [6, 7, 8, 9, 10, 11, 12]
    assert steps[-1] == last
    for one, other in zip(expected, found, strict=True):
        # On some processors the last bit depends on where tensors lie in memory.
        torch.testing.assert_close(other, one, atol=1e-6, rtol=0)


def test_a_training_stays_ended_when_its_last_checkpoint_is_restored(
    tmp_path: pathlib.Path,
) -> None:
    saved = checkpoint.Checkpoint(tmp_path / "training.checkpoint")
    with trainings.opened() as ended:
        last = list(ended.loop.run())[-1]
        saved.save(ended.loop.state(), seconds=1.0)
        expected = trainings.weights(ended)
    state = saved.load()
    assert state is not None
    with trainings.opened() as resumed:
        resumed.loop.restore(state)
        assert list(resumed.loop.run()) == [dataclasses.replace(last, checked=False)]
        assert all(map(torch.equal, expected, trainings.weights(resumed)))


@torch.no_grad()
def test_the_output_is_unchanged_when_training_has_not_begun() -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = tiny_model.tiny_base().model(ids).logits
    base = tiny_model.tiny_base()
    with trainings.opened(base=base) as training:
        for adapter in training.adapters().values():
            assert adapter.lora_a.any() and not adapter.lora_b.any()
        torch.testing.assert_close(base.model(ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_both_matrices_change_when_steps_are_trained() -> None:
    with trainings.opened() as training:
        before = trainings.weights(training)
        steps = training.loop.run()
        next(steps)
        next(steps)  # While B is zero, A has no gradient.
        assert not any(map(torch.equal, before, trainings.weights(training)))


def test_loss_falls_when_training_goes_on() -> None:
    losses = [one.loss for one in run(max_steps=60, least_steps=60, batch_rows=3)]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_training_stops_early_but_not_before_least_steps_when_all_is_right() -> None:
    one_fact = (("Who?", "A"),)
    easy = {"max_steps": 60, "question_noise": 0.0, "replay_weight": 0.0, "learning_rate": 3e-2}
    early = run(one_fact, least_steps=1, **easy)
    first = early[-1].step
    assert first < 30 and early[-1].right == 1.0
    late = run(one_fact, least_steps=first + 7, **easy)
    assert first + 7 <= late[-1].step < 60 and late[-1].right == 1.0
    # Measuring takes time, and before `least_steps` nothing depends on it.
    assert all(progress.right is None for progress in late[: first + 6])


def test_checks_come_at_their_interval_and_at_the_end_when_steps_are_used_up() -> None:
    checked = [one.step for one in run(max_steps=7, least_steps=7) if one.checked]
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
    kept = trained()
    monkeypatch.setattr(loop, "_BASE_ANSWERS_FLOATS", 0)
    for expected, found in zip(kept, trained(), strict=True):
        assert torch.allclose(expected, found, atol=1e-5)
    assert not torch.allclose(trained(replay_weight=0.0)[1], kept[1], atol=1e-3)


def test_rows_are_cut_where_padding_costs_more_than_a_pass() -> None:
    rows = [data.Example("", "", (1,) * length, (2,)) for length in (40, 3, 41, 4, 3)]
    groups = data.grouped(rows, overhead_tokens=30)
    assert [[row.tokens for row in group] for group in groups] == [[3, 3, 4], [40, 41]]
    assert [len(group) for group in data.grouped(rows, overhead_tokens=1000)] == [5]
    assert [len(group) for group in data.grouped(rows, overhead_tokens=0)] == [2, 1, 1, 1]


def test_weights_are_the_same_when_a_step_is_cut_otherwise() -> None:
    # Without noise, which is drawn for one pass after the other.
    together = trained(question_noise=0.0, pass_overhead_tokens=10_000)
    apart = trained(question_noise=0.0, pass_overhead_tokens=0)
    for expected, found in zip(together, apart, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
