"""Lessons that the tree and its history hold by themselves: no teacher is asked.

A definition gives one of each kind for which it has what is needed, and two completions at most.
Drafts only: whether they are fit to be taught is for `checks` to say.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping

from services.distiller.codebase import chunks, history
from services.distiller.codebase.lessons import completing, faults, source, wordings
from shared.flight import samples

_LEAST_DOCSTRING_WORDS = 4
"""Fewer say little more than the name."""
_MOST_CLASS_LINES = 60
"""A larger class does not follow from its docstring."""
_LEAST_BODY_LINES = 2
"""Of what is written or mended: a single line is the name in other words."""


@dataclasses.dataclass(frozen=True)
class Offline:
    """Makes the lessons of one repository."""

    definitions: Mapping[tuple[str, str], chunks.Chunk]
    """By path and symbol."""
    pairs: Mapping[str, history.Pair]
    """Before and after, by `history.key`."""
    commit: str
    """That the definitions were read at."""

    def lessons(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        """The drafts of one definition."""
        yield from self._write(chunk)
        yield from self._complete(chunk)
        yield from self._explain(chunk)
        yield from self._test(chunk)
        yield from self._refactor(chunk)
        yield from self._fix(chunk)

    def _write(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        lines = chunk.body.strip().count("\n") + 1
        large = chunk.form == chunks.Form.CLASS and lines > _MOST_CLASS_LINES
        if not _documented(chunk) or large or not chunk.body.strip():
            return
        if chunk.language == source.PYTHON:
            margin = source.indent(chunk.text) if chunk.form == chunks.Form.METHOD else ""
            told = self._above(chunk) + source.indented(source.dedented(source.head(chunk)), margin)
        else:
            told = f"{chunk.docstring}\n\n{self._above(chunk)}{chunk.signature.strip()}"
        yield self._made(samples.Kind.WRITE, chunk, told, source.dedented(chunk.text))

    def _complete(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        for one in completing.completions(chunk, self._parents(chunk)):
            yield self._made(samples.Kind.COMPLETE, chunk, one.before, one.after)

    def _explain(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        code = source.bare(chunk)
        if code and _documented(chunk) and chunk.body.strip().count("\n") + 1 <= _MOST_CLASS_LINES:
            yield self._made(
                samples.Kind.EXPLAIN, chunk, code, inspect.cleandoc(chunk.docstring).strip()
            )

    def _test(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        if chunk.tests:
            code = source.dedented(chunk.text)
            yield self._made(samples.Kind.TEST, chunk, code, source.dedented(chunk.tests[0]))

    def _refactor(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        pair = self.pairs.get(history.key(chunk.path, chunk.symbol))
        subject = history.told(pair.subject) if pair is not None else ""
        if pair is not None and subject:
            after = source.dedented(chunk.text)
            made = self._made(samples.Kind.REFACTOR, chunk, pair.before, after)
            yield dataclasses.replace(
                made, instruction=wordings.wording(samples.Kind.REFACTOR, chunk, subject)
            )

    def _fix(self, chunk: chunks.Chunk) -> Iterator[samples.Sample]:
        short = chunk.body.strip().count("\n") + 1 < _LEAST_BODY_LINES
        if chunk.language != source.PYTHON or chunk.form == chunks.Form.CLASS or short:
            return
        real = source.dedented(chunk.text)
        wrong = faults.faulty(real, source.number("fault", chunk.path, chunk.symbol))
        if wrong is not None:
            yield self._made(samples.Kind.FIX, chunk, wrong, real)

    def _made(
        self, kind: samples.Kind, chunk: chunks.Chunk, input_: str, output: str
    ) -> samples.Sample:
        asked = kind not in (samples.Kind.COMPLETE, samples.Kind.REFACTOR)
        return samples.Sample(
            kind=kind,
            instruction=wordings.wording(kind, chunk) if asked else "",
            input=input_,
            output=output,
            path=chunk.path,
            symbol=chunk.symbol,
            language=chunk.language,
            licence=chunk.licence,
            commit=self.commit,
            teacher=samples.BY_REPOSITORY,
        )

    def _above(self, chunk: chunks.Chunk) -> str:
        return completing.file_head(chunk, self._parents(chunk))

    def _parents(self, chunk: chunks.Chunk) -> Mapping[str, chunks.Chunk]:
        parts = chunk.symbol.split(".")
        symbols = [".".join(parts[:depth]) for depth in range(1, len(parts))]
        found = {symbol: self.definitions.get((chunk.path, symbol)) for symbol in symbols}
        return {symbol: one for symbol, one in found.items() if one is not None}


def _documented(chunk: chunks.Chunk) -> bool:
    return len(chunk.docstring.split()) >= _LEAST_DOCSTRING_WORDS
