"""Which definitions a commit holds: the work tree may be further than what was committed.

A lesson names the commit that it was read at; what is not in it would be a lesson nobody can check.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from services.distiller.codebase import chunks, git, languages, secrets, sources

_AT_ONCE = 64
"""Files that are read in one call of git."""


def parted(
    root: pathlib.Path, commit: str, found: Sequence[chunks.Chunk], most_bytes: int
) -> tuple[list[chunks.Chunk], list[chunks.Chunk]]:
    """The definitions that stand so in a commit, in order, and the others.

    Of their tests those are left that stand in it, too.

    Args:
        root: of the repository.
        commit: its full id.
        found: definitions without secrets; what was taken out of them is taken out of the commit's
            files as well before the two are compared.
        most_bytes: a file that is larger in the commit counts as missing there.

    Raises:
        errors.InvalidInputError: git failed.
    """
    by_path: dict[str, dict[str, None]] = {}
    for chunk in found:
        for path, text in ((chunk.path, chunk.text), *_tests(chunk)):
            by_path.setdefault(path, {})[text] = None
    inside: set[tuple[str, str]] = set()
    paths = iter(by_path)
    while some := list(itertools.islice(paths, _AT_ONCE)):
        read = git.blobs(root, [f"{commit}:{path}" for path in some], most_bytes)
        for path in some:
            data = read.get(f"{commit}:{path}", b"")
            inside.update(_within(data, path, by_path[path]))
    kept, others = list[chunks.Chunk](), list[chunks.Chunk]()
    for chunk in found:
        if (chunk.path, chunk.text) not in inside:
            others.append(chunk)
            continue
        tests = [one for one in _tests(chunk) if one in inside]
        kept.append(
            dataclasses.replace(
                chunk,
                tests=tuple(text for _, text in tests),
                test_paths=tuple(path for path, _ in tests),
            )
        )
    return kept, others


def _tests(chunk: chunks.Chunk) -> list[tuple[str, str]]:
    """Path and text of each."""
    return list(zip(chunk.test_paths, chunk.tests, strict=True))


def _within(data: bytes, path: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The path with each of the texts that stands in a file of the commit."""
    language = languages.of_path(path)
    try:
        text = sources.decode(data, language.name if language is not None else "")
    except sources.UnfitError:
        return
    clean: str | None = None
    for one in texts:
        if one not in text:
            if clean is None:
                clean, _ = secrets.clean(text, language, path)
            if one not in clean:
                continue
        yield path, one
