"""Small code bases: definitions of a text, and repositories with a history."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess

from services.distiller.codebase import chunks, python_source
from shared.flight import samples

COMMIT = "0" * 40
SOURCE = '''"""Halves."""

import math


class Halves:
    """Takes things in two."""

    def of(self, number: int, least: int = 0) -> int:
        """The half of a number, rounded down.

        Args:
            number: what to take the half of.
            least: nothing smaller is given back.
        """
        half = number // 2
        if half < least:
            return least
        return half

    def roots(self, numbers: list[int]) -> list[float]:
        """The square roots of all halves, in their order."""
        found = []
        for number in numbers:
            try:
                found.append(math.sqrt(self.of(number, least=0)))
            except ValueError:
                found.append(math.nan)
        return found


async def later(wait: float, value: int) -> int:
    """Gives a value back after a while."""
    # The clock is not ours.
    await sleep(wait, value)
    return await asked(value + 1)
'''


def definitions(text: str = SOURCE, path: str = "halves.py") -> dict[str, chunks.Chunk]:
    """The definitions of a Python file, by symbol."""
    return {
        one.symbol: chunks.Chunk(
            path=path,
            symbol=one.symbol,
            form=one.form,
            language="python",
            text=one.text,
            signature=one.signature,
            docstring=one.docstring,
            body=one.body,
            line=one.line,
            imports=("import math",) if "math" in one.text else (),
        )
        for one in python_source.parse(path, text).definitions
    }


def sample(chunk: chunks.Chunk | None = None, **changed: object) -> samples.Sample:
    """A lesson of a definition, with as little as possible spelled out."""
    chunk = chunk or definitions()["Halves.of"]
    made = samples.Sample(
        kind=samples.Kind.WRITE,
        instruction="Write it.",
        input=chunk.signature,
        output=chunk.text,
        path=chunk.path,
        symbol=chunk.symbol,
        language=chunk.language,
        licence="MIT",
        commit=COMMIT,
        teacher=samples.BY_REPOSITORY,
    )
    return dataclasses.replace(made, **changed)  # type: ignore[arg-type]


class History:
    """A repository that a test makes, commit by commit."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._git("init", "-q", "-b", "main")

    def commit(self, subject: str, **files: str) -> str:
        """Writes files, whose names have `__` for the dot, and commits them."""
        return self.commit_files(subject, {n.replace("__", "."): t for n, t in files.items()})

    def commit_files(self, subject: str, files: dict[str, str]) -> str:
        """Writes files and commits them."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._git("add", "-A")
        self._git("commit", "-q", "--allow-empty", "-m", subject)
        return self._git("rev-parse", "HEAD").strip()

    def _git(self, *arguments: str) -> str:
        who = {f"GIT_{role}_{part}": "a@example.org" for role in ("AUTHOR", "COMMITTER")
               for part in ("NAME", "EMAIL")}  # fmt: skip
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments],
            env=os.environ | who | {"GIT_CONFIG_GLOBAL": "/dev/null"},
            capture_output=True, check=True, text=True,
        )  # fmt: skip
        return done.stdout
