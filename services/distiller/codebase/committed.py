"""Which definitions a commit holds: the work tree may be further than what was committed.

A lesson names the commit that it was read at; what is not in it would be a lesson nobody can check.
"""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from services.distiller.codebase import chunks, git, languages, secrets, sources

_AT_ONCE = 64
"""Files that are read in one call of git."""


def parted(
    root: pathlib.Path, commit: str, found: Sequence[chunks.Chunk]
) -> tuple[list[chunks.Chunk], list[chunks.Chunk]]:
    """The definitions that stand so in a commit, in order, and the others.

    Args:
        root: of the repository.
        commit: its full id.
        found: definitions without secrets; what was taken out of them is taken out of the commit's
            files as well before the two are compared.

    Raises:
        errors.InvalidInputError: git failed.
    """
    by_path: dict[str, list[chunks.Chunk]] = {}
    for chunk in found:
        by_path.setdefault(chunk.path, []).append(chunk)
    inside: set[tuple[str, str]] = set()
    paths = iter(by_path)
    while some := list(itertools.islice(paths, _AT_ONCE)):
        read = git.blobs(root, [f"{commit}:{path}" for path in some])
        for path in some:
            data = read.get(f"{commit}:{path}", b"")
            inside.update(_within(data, path, by_path[path]))
    kept = [chunk for chunk in found if (chunk.path, chunk.symbol) in inside]
    return kept, [chunk for chunk in found if (chunk.path, chunk.symbol) not in inside]


def _within(data: bytes, path: str, found: Iterable[chunks.Chunk]) -> Iterator[tuple[str, str]]:
    language = languages.of_path(path)
    try:
        text = sources.decode(data, language.name if language is not None else "")
    except sources.UnfitError:
        return
    clean: str | None = None
    for chunk in found:
        if chunk.text not in text:
            if clean is None:
                clean, _ = secrets.clean(text, language, path)
            if chunk.text not in clean:
                continue
        yield chunk.path, chunk.symbol
