"""`extract`: from a repository to its chunks, the most useful first.

Secrets leave a file's text before it is parsed, so that no field of any chunk can hold one.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from services.distiller.codebase import (
    chunks,
    definitions,
    duplicates,
    languages,
    linking,
    python_source,
    repository,
    secrets,
    sources,
    tree_source,
    usefulness,
)
from shared import codebase_settings

_MOST_CALL_SITES, _MOST_TESTS = 3, 3
_LINES_AROUND = 3
_MOST_TEST_LINES = 80
_TYPED = re.compile(r"->|\w\s*:\s*\w")


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
    read = sources.Sources(repo, settings)
    files: list[definitions.ParsedFile] = []
    skipped: list[Skipped] = []
    removed: list[secrets.Removed] = []
    for number, entry in enumerate(read.entries, 1):
        try:
            text, language, licence = read.read(entry)
            # Name by name: together they would look random.
            if secrets.clean(entry.path.replace("/", "\n"), None)[1]:
                raise sources.UnfitError("secret in its name")
            file, found = parse(entry.path, text, language)
            files.append(dataclasses.replace(file, licence=licence))
            removed.extend(found)
        except (sources.UnfitError, definitions.DoesNotParseError) as error:
            # A name may be of bytes that are no text.
            name = entry.path.encode(errors="replace").decode()
            skipped.append(Skipped(name, str(error)))
        on_progress(number, len(read.entries))
    cut, trivial, repeated = _chunks(files)
    return Extraction(
        chunks=tuple(cut),
        skipped=tuple(skipped),
        removed=tuple(removed),
        files=len(files),
        lines=sum(len(file.lines) for file in files),
        duplicates=repeated,
        trivial=trivial,
        commit=repo.commit,
        licence=read.licence,
    )


def parse(
    path: str, text: str, language: languages.Language
) -> tuple[definitions.ParsedFile, list[secrets.Removed]]:
    """What stands in a file once its secrets are gone, and which were there.

    Raises:
        definitions.DoesNotParseError: it is not of its language, before or after.
    """
    cleaned, removed = secrets.clean(text, language, path)
    try:
        return _parse(path, cleaned, language), removed
    except definitions.DoesNotParseError:
        if removed:
            _parse(path, text, language)
            raise definitions.DoesNotParseError("does not parse without its secrets") from None
        raise


def _parse(path: str, text: str, language: languages.Language) -> definitions.ParsedFile:
    if language is languages.PYTHON:
        return python_source.parse(path, text)
    return tree_source.parse(path, text, language)


def _chunks(files: Sequence[definitions.ParsedFile]) -> tuple[list[chunks.Chunk], int, int]:
    """The chunks, how many definitions were trivial and how many nearly the same as others."""
    uses = linking.Linker(files).uses()
    by_path = {file.path: file for file in files}
    tests = {
        (file.path, one.symbol): one for file in files for one in file.definitions if one.is_test
    }
    calls_of_test = collections.Counter(
        (use.path, use.caller) for found in uses.values() for use in found if use.by_test
    )
    found: list[chunks.Chunk] = []
    trivial = 0
    for file in files:
        for one in file.definitions:
            if one.is_trivial:
                trivial += not one.is_test
                continue
            used = uses.get((file.path, one.symbol), [])
            told = _tests(used, tests, calls_of_test)
            callers = len({(use.path, use.caller) for use in used if not use.by_test})
            typed = _TYPED.search(one.signature) is not None or file.language != "python"
            found.append(
                chunks.Chunk(
                    path=file.path,
                    symbol=one.symbol,
                    form=one.form,
                    language=file.language,
                    text=one.text,
                    signature=one.signature,
                    docstring=one.docstring,
                    body=one.body,
                    line=one.line,
                    imports=_imports(file, one),
                    call_sites=_call_sites(file.path, used, by_path),
                    tests=tuple(text for _, text in told),
                    test_paths=tuple(at for at, _ in told),
                    licence=file.licence,
                    usefulness=usefulness.usefulness(one, callers, len(told), typed),
                )
            )
    found.sort(key=lambda chunk: (-chunk.usefulness, chunk.path, chunk.line, chunk.symbol))
    kept = duplicates.keep_first([chunk.text for chunk in found])
    return [found[number] for number in kept], trivial, len(found) - len(kept)


def _imports(file: definitions.ParsedFile, one: definitions.Definition) -> tuple[str, ...]:
    # A header has no name to look for.
    every = file.language in ("c", "c++")
    used = (i.text for i in file.imports if every or i.name in one.names)
    return tuple(dict.fromkeys(used))


def _call_sites(
    path: str, uses: Sequence[linking.Use], files: Mapping[str, definitions.ParsedFile]
) -> tuple[str, ...]:
    """Of the uses outside tests: other files before the own, one of each file before a second."""
    rank: collections.Counter[str] = collections.Counter()
    ordered = []
    for use in uses:
        if not use.by_test:
            rank[use.path] += 1
            ordered.append((rank[use.path], use.path == path, use.path, use.line))
    texts = []
    for _, _, at, line in sorted(ordered)[:_MOST_CALL_SITES]:
        lines = files[at].lines[max(0, line - 1 - _LINES_AROUND) : line + _LINES_AROUND]
        texts.append(textwrap.dedent("\n".join(lines)).strip("\n"))
    return tuple(dict.fromkeys(texts))


def _tests(
    uses: Sequence[linking.Use],
    tests: Mapping[linking.Key, definitions.Definition],
    calls: Mapping[linking.Key, int],
) -> list[tuple[str, str]]:
    """Path and text; those that call little else come first, then short ones."""
    keys = {(use.path, use.caller) for use in uses if use.by_test}
    found = [
        (not _is_test_itself(tests[key]), calls[key], len(tests[key].text), tests[key].text, key[0])
        for key in keys
        if key in tests and tests[key].text.count("\n") < _MOST_TEST_LINES
    ]
    return [(path, text) for *_, text, path in sorted(found)[:_MOST_TESTS]]


def _is_test_itself(one: definitions.Definition) -> bool:
    """And not a helper of tests."""
    return one.symbol.rpartition(".")[2].casefold().startswith("test") or "@Test" in one.signature
