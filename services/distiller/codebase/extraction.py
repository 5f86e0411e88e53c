"""`extract`: from a repository to its chunks, the most useful first."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from services.distiller.codebase import chunks, repository, secrets
from shared import codebase_settings


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A file that was left out."""

    path: str
    reason: str
    """Of a small set of words, such as `binary` or `licence GPL-3.0-only`."""


@dataclasses.dataclass(frozen=True)
class Extraction:
    """What was found in a repository."""

    chunks: tuple[chunks.Chunk, ...]
    """The most useful first; no two of the same path and symbol."""
    skipped: tuple[Skipped, ...]
    removed: tuple[secrets.Removed, ...]
    """Secrets and personal data that were taken out: where and of what kind."""
    files: int
    """That were read and parsed."""
    lines: int
    """Of these files."""
    duplicates: int
    """Definitions left out because one more useful is nearly the same."""
    trivial: int
    """Definitions left out because they have no body to learn from."""
    commit: str
    licence: str
    """SPDX expression of the repository; empty where it does not say."""


def extract(
    repo: repository.Repository,
    settings: codebase_settings.Codebase,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Extraction:
    """The definitions of a repository that are fit to learn, without secrets.

    Args:
        repo: what to read.
        settings: what may be learned of it.
        on_progress: told how many files are done, and of how many.

    Raises:
        errors.InvalidInputError: git cannot list its files.
    """
    raise NotImplementedError
