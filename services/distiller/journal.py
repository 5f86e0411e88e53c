"""What the distiller remembers of a task on disk, so that no teacher is asked twice.

One folder a task: a file for every answered call, named by the hash of the call, one for the
finished distillation, and one for the pairs that were rejected. Files appear whole or not at all;
one that can't be read counts as missing, which costs a call.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence

import pydantic

from services.distiller import distillation, task_files
from services.distiller.providers import base
from services.distiller.quality import verdict
from shared import atomic
from shared.flight import datasets

_PAIRS: pydantic.TypeAdapter[list[datasets.QAPair]] = pydantic.TypeAdapter(list[datasets.QAPair])
_RESULT: pydantic.TypeAdapter[distillation.Distillation] = pydantic.TypeAdapter(
    distillation.Distillation
)
_RESULT_FILE = "result.json"
_REJECTED_FILE = "rejected.jsonl"
SKILLS = "skills"
"""Name of the folder that is no task's: it says what each skill was last made of."""


class Journal:
    """The files of all tasks."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the folder, which is made when the first file is written."""
        self._folder = folder

    def answer(self, task_id: str, call: base.QARequest) -> list[datasets.QAPair] | None:
        """What a teacher answered to this call of the task; nothing where it did not yet."""
        return task_files.read(self._path(task_id, _name(call)), _PAIRS)

    def keep_answer(self, task_id: str, call: base.QARequest, pairs: list[datasets.QAPair]) -> None:
        """Keeps what a teacher answered."""
        atomic.write(self._path(task_id, _name(call)), _PAIRS.dump_json(pairs))

    def take_over(self, task_id: str, earlier: Sequence[str]) -> None:
        """Makes what earlier tasks were answered the task's own, where it has nothing yet.

        Left out are tasks whose answers were sifted and came to no result: the same answers would
        come to none again.

        Args:
            task_id: of the task that tries again.
            earlier: what it tries again, the latest first.
        """
        for one in earlier:
            result, rejected = self._path(one, _RESULT_FILE), self.rejected_path(one)
            if rejected.exists() and not result.exists():
                continue
            for path in sorted(result.parent.glob("*.json")):
                own = self._path(task_id, path.name)
                if path != result and not own.exists():
                    atomic.write(own, path.read_bytes())

    def result(self, task_id: str) -> distillation.Distillation | None:
        """The finished distillation of the task, if it is finished."""
        return task_files.read(self._path(task_id, _RESULT_FILE), _RESULT)

    def keep_result(self, task_id: str, result: distillation.Distillation) -> None:
        """Keeps the finished distillation."""
        asked = [pair for pair in result.pairs if pair.score > datasets.UNASKED_SCORE]
        atomic.write(self._skill_path(result.skill_name), _PAIRS.dump_json(asked))
        atomic.write(self._path(task_id, _RESULT_FILE), _RESULT.dump_json(result))

    def keep_rejected(self, task_id: str, rejected: Sequence[verdict.Rejected]) -> None:
        """Keeps what was not good enough to train on, one JSON object a line, for people."""
        lines = [json.dumps(dataclasses.asdict(one), ensure_ascii=False) for one in rejected]
        text = "".join(f"{line}\n" for line in lines)
        atomic.write(self.rejected_path(task_id), text.encode(errors="replace"))

    def rejected_path(self, task_id: str) -> pathlib.Path:
        """Where the rejected pairs of a task are kept."""
        return self._path(task_id, _REJECTED_FILE)

    def skill(self, name: str) -> list[datasets.QAPair]:
        """What people asked of a skill so far, as its last distillation had it."""
        return task_files.read(self._skill_path(name), _PAIRS) or []

    def _skill_path(self, name: str) -> pathlib.Path:
        return self._folder / SKILLS / f"{name}.json"

    def _path(self, task_id: str, name: str) -> pathlib.Path:
        return task_files.folder_of(task_id, self._folder) / name


def _name(call: base.QARequest) -> str:
    fields = dataclasses.asdict(call)
    del fields["task_id"]  # The folder says it.
    if not call.only_queries:
        # The task says it; only the judge asks several teachers.
        del fields["teacher"]
    text = json.dumps(fields, sort_keys=True)
    return f"{hashlib.sha256(text.encode()).hexdigest()}.json"
