"""What every sample has to stand before it is taught, whoever made it.

Code parses; what the repository is said to contain is in it; a test names what it tests; prose is
prose; nothing is empty, too long, said twice, or secret. Knows nothing about how samples are made.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import source, verdicts
from shared.flight import samples

MOST_QUESTION_CHARACTERS, MOST_OUTPUT_CHARACTERS = 12_000, 6_000
"""About 3,500 and 1,700 tokens: what fits into the context that small models are trained with."""
LEAST_WORDS = 3
"""Of an explanation."""
_WORD = re.compile(r"[^\W\d_]{2,}")
_SIGNS_OF_CODE = re.compile(
    r"^\s*(?:def|class|import|from\s+\S+\s+import|return|>>>|@)\b|[{};]\s*$"
)
_ALL = frozenset(samples.Kind) - {samples.Kind.EXPLAIN, samples.Kind.COMPLETE}
"""Kinds whose output is code by itself."""
_NO_TESTS = "it holds no function that asserts anything"

Scrub = Callable[[str, str], str]
"""Gives back a text (first) without what looks like a secret; the same text where nothing does.
The second is the path of the file that it is source code of, empty for prose."""
Parses = Callable[[str, str], bool]
"""Whether a text (first) is source of a language (second) without errors."""
Wrong = tuple[verdicts.Reason, str] | None


@dataclasses.dataclass(frozen=True)
class Checks:
    """What checking needs to know of a repository."""

    definitions: Mapping[tuple[str, str], chunks.Chunk]
    """By path and symbol."""
    scrub: Scrub
    parses: Parses

    def sift(self, drafts: Iterable[samples.Sample]) -> verdicts.Sifted:
        """Keeps the samples that nothing is wrong with."""
        kept, rejected = list[samples.Sample](), list[verdicts.Rejected]()
        for sample in drafts:
            wrong = self.wrong(sample)
            if wrong is None:
                kept.append(sample)
            else:
                rejected.append(verdicts.Rejected(sample, *wrong))
        return verdicts.Sifted(tuple(kept), tuple(rejected))

    def wrong(self, sample: samples.Sample) -> Wrong:
        """The first thing that is wrong with a sample; nothing where all is right."""
        # Secrets first: what is rejected for anything else is kept for people to read.
        return self._secret(sample) or self._shape(sample) or self._meaning(sample)

    def _shape(self, sample: samples.Sample) -> Wrong:
        if not sample.output.strip():
            return verdicts.Reason.EMPTY, "its output is empty"
        if not sample.question.strip():
            return verdicts.Reason.EMPTY, "it asks nothing"
        if sample.kind != samples.Kind.COMPLETE and not sample.instruction.strip():
            return verdicts.Reason.EMPTY, "its instruction is empty"
        for part, text, most in (
            ("question", sample.question, MOST_QUESTION_CHARACTERS),
            ("output", sample.output, MOST_OUTPUT_CHARACTERS),
        ):
            if len(text) > most:
                return verdicts.Reason.LENGTH, f"its {part} has {len(text)} characters"
        if sample.input.strip() == sample.output.strip():
            return verdicts.Reason.SAME, "its output is its input"
        return None

    def _secret(self, sample: samples.Sample) -> Wrong:
        said = sample.output if sample.kind == samples.Kind.EXPLAIN else ""
        code = "" if said else sample.output
        for part, text, path in (
            ("instruction", sample.instruction, ""),
            ("input", sample.input, sample.path),
            ("output", said, ""),
            ("output", code, sample.path),
        ):
            if self.scrub(text, path) != text:
                return verdicts.Reason.SECRET, f"its {part} holds what looks like a secret"
        return None

    def _meaning(self, sample: samples.Sample) -> Wrong:
        chunk = self.definitions.get((sample.path, sample.symbol))
        if chunk is None:
            return verdicts.Reason.ABSENT, "no such definition is in the repository"
        if sample.kind in _ALL and not self.parses(sample.output, sample.language):
            return verdicts.Reason.SYNTAX, "its output does not parse"
        if sample.kind == samples.Kind.EXPLAIN:
            return prose(sample.output)
        if sample.kind == samples.Kind.TEST:
            return self._test(sample, chunk)
        if sample.kind == samples.Kind.COMPLETE:
            return self._completion(sample, chunk)
        return self._definition(sample, chunk)

    def _test(self, sample: samples.Sample, chunk: chunks.Chunk) -> Wrong:
        named = source.name(sample.symbol)
        owner = sample.symbol.rpartition(".")[0]
        # A constructor is tested by the name of its class.
        wanted = source.name(owner) if owner and named.startswith("__") else named
        if wanted not in source.tokens(sample.output):
            return verdicts.Reason.OFF, f"it does not name {wanted}"
        if sample.language == source.PYTHON and not _asserts(sample.output):
            return verdicts.Reason.OFF, _NO_TESTS
        if sample.teacher == samples.BY_REPOSITORY and not any(
            source.dedented(test) == sample.output for test in chunk.tests
        ):
            return verdicts.Reason.ABSENT, "no such test is in the repository"
        return None

    def _completion(self, sample: samples.Sample, chunk: chunks.Chunk) -> Wrong:
        whole = sample.input + sample.output
        # Prefix and continuation, put together, are what the repository has, up to where it ends.
        at = whole.find(source.head(chunk).strip())
        if at < 0:
            at = whole.find(source.dedented(source.head(chunk)).strip())
        text = chunk.text.strip(), source.dedented(chunk.text)
        if at < 0 or not any(one.startswith(whole[at:]) for one in text):
            return verdicts.Reason.ABSENT, "the repository does not go on like that"
        if sample.language == source.PYTHON and source.tree(whole) is None:
            return verdicts.Reason.SYNTAX, "input and output together do not parse"
        return None

    def _definition(self, sample: samples.Sample, chunk: chunks.Chunk) -> Wrong:
        real = source.dedented(chunk.text)
        if sample.output != real:
            told = source.normal(sample.output, sample.language)
            if not told or told != source.normal(real, sample.language):
                return verdicts.Reason.ABSENT, "its output is not what the repository has"
        if sample.kind in (samples.Kind.FIX, samples.Kind.REFACTOR):
            if not self.parses(sample.input, sample.language):
                return verdicts.Reason.SYNTAX, "its input does not parse"
            told = source.normal(sample.input, sample.language)
            if told == source.normal(sample.output, sample.language):
                return verdicts.Reason.SAME, "its input differs by layout alone"
        return None


def prose(text: str) -> Wrong:
    """What is wrong with an explanation."""
    words = _WORD.findall(text)
    if len(words) < LEAST_WORDS:
        return verdicts.Reason.PROSE, f"it has {len(words)} words"
    lines = [line for line in text.split("\n") if line.strip()]
    code = sum(_SIGNS_OF_CODE.search(line) is not None for line in lines)
    if 2 * code >= len(lines):
        return verdicts.Reason.PROSE, "it is code"
    tree = source.tree(text)
    if tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body):
        return verdicts.Reason.PROSE, "it is code"
    return None


def _asserts(text: str) -> bool:
    """Whether Python holds a function with an assertion, or a block that expects an error."""
    tree = source.tree(text)
    functions = [
        node
        for node in ast.walk(tree or ast.Module([], []))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return any(_expects(node) for function in functions for node in ast.walk(function))


def _expects(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.Call):
        called = node.func
        told = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return told.startswith("assert") or told in ("raises", "warns", "fail")
    return False
