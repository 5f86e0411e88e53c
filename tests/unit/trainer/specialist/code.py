"""Samples of a tiny code base, and a manager of the tiny base."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from services.trainer import trainer
from services.trainer.specialist import hardware, manager
from shared import codebase_settings
from shared import settings as config
from shared.flight import samples
from shared.models import base as bases
from shared.models import replay
from tests import tiny_model

MACHINE = hardware.Hardware(cores=2, memory_bytes=8 * 10**9, peft=True)
RECIPE = config.Recipe(learning_rate=0.03, replay_rows=1, card_dtype="float32")
ANSWERED = (replay.Answered("Why?", "no"), replay.Answered("How?", "so"))


def sample(kind: samples.Kind, input_: str, output: str, **more: Any) -> samples.Sample:
    fields: dict[str, Any] = {
        "instruction": "" if kind is samples.Kind.COMPLETE else "Do it.",
        "path": "a.py",
        "symbol": "area",
        "language": "python",
        "licence": "MIT",
        "commit": "c" * 40,
        "teacher": samples.BY_REPOSITORY,
    }
    return samples.Sample(kind=kind, input=input_, output=output, **(fields | more))


def taught() -> list[samples.Sample]:
    """Functions of one style: a card that knows it knows how the held-out ones go on."""
    found = []
    for at, name in enumerate(("cat", "dog", "owl", "fox", "elk", "ant")):
        head, body = f"def {name}(self):\n", f"    return self.{name}\n"
        more = {"symbol": name, "held_out": at >= 4}
        found.append(sample(samples.Kind.COMPLETE, head, body, **more))
        found.append(sample(samples.Kind.WRITE, head, head + body, **more))
    return found


def order(seed: int = 1) -> trainer.Order:
    return trainer.Order(
        "t1",
        "0" * 64,
        "specialist-tiny",
        "1.0.0",
        "code",
        "a card",
        samples.BY_REPOSITORY,
        seed,
        kind="samples",
    )


def managed(
    folder: pathlib.Path, base: bases.BaseModel | None = None, **how: Any
) -> manager.TrainingManager:
    fields: dict[str, Any] = {"context_tokens": 96, "rank": 4, "epochs": 8.0, "min_steps": 1}
    settings = config.Trainer(
        threads=1,
        checkpoint_every_steps=4,
        specialist=codebase_settings.Specialist(**(fields | how)),
    )
    base = base or tiny_model.tiny_base()
    return manager.TrainingManager(base, RECIPE, settings, folder, lambda: MACHINE)


def answer_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny base is asked two known questions, for which it has answers of its own."""
    monkeypatch.setattr(replay, "prepare", lambda *_: replay.Replay(ANSWERED, ANSWERED, ()))


def ignore(*_: object) -> None:
    pass


def described(**changes: Any) -> hardware.Hardware:
    return dataclasses.replace(MACHINE, **changes)
