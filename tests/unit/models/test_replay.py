"""The base's own answers, which are kept for each way in which it computes."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest
import torch

from shared.models import greedy, replay
from tests import tiny_model


def test_the_base_is_asked_again_when_it_computes_in_another_precision(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answers(base: Any, questions: list[str]) -> list[str]:
        asked.append(str(base.model.dtype))
        return [asked[-1]] * len(questions)

    monkeypatch.setattr(greedy, "answers", answers)
    base = tiny_model.tiny_base()
    first = replay.prepare(base, tmp_path)
    assert replay.prepare(base, tmp_path) == first
    base.model.to(torch.bfloat16)
    assert {one.answer for one in replay.prepare(base, tmp_path).known} == {"torch.bfloat16"}
    assert asked == ["torch.float32", "torch.bfloat16"]
