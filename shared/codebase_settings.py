"""Settings of learning from repositories."""

from __future__ import annotations

import pathlib

import pydantic

from shared import sections


class Codebase(sections.Section):
    """What of a repository is taught, and how much."""

    repositories_dir: pathlib.Path = pathlib.Path("repositories")
    """Within the state folder: the git repositories in it, or linked from it, may be learned, and
    no others."""
    licences: tuple[str, ...] = (
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT",
        "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
    )  # fmt: skip
    """SPDX identifiers of files that may be learned."""
    unlicensed: bool = True
    """Whether files of no stated licence may be learned: your own code often has none."""
    most_file_kb: sections.Count = 512
    """Larger files are left out."""
    most_samples: sections.Count = 2_000
    """The most useful are taken."""
    held_out_share: sections.Share = 0.15
    """Of the definitions, kept from training with all their samples, to prove what was learned."""
    history_commits: sections.Count = 500
    """So many commits are searched for pairs of before and after."""
    teacher_definitions: int = pydantic.Field(default=100, ge=0)
    """The most useful ones, about which a language model as the teacher is asked: a call each."""
