"""What is kept from training to prove what was learned, and that nothing of it is trained on.

By definition: all samples of one are on the same side, always the same one. What training samples
share with the held-out side is found by runs of tokens, the usual measure of contamination.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import source, verdicts
from shared.flight import samples

RUN_TOKENS = 13
"""As long as in GPT-3's check of its own tests (Brown et al. 2020, appendix C). In code that is one
to two lines: shorter runs, such as a loop's head or a call, are how a code base writes and are what
is to be learned."""
_COMMON_FROM = 4
"""A run that so many definitions share is such a way of writing, too, and gives nothing away."""
_ONE = 2**64


def is_held_out(path: str, symbol: str, share: float) -> bool:
    """Whether a definition is kept from training; decided by its name alone.

    Args:
        path: of its file within the repository.
        symbol: its qualified name.
        share: of all definitions, 0 to 1.
    """
    return source.number("held out", path, symbol) < share * _ONE


def marked(made: Iterable[samples.Sample], share: float) -> list[samples.Sample]:
    """The samples, those of held-out definitions marked."""
    return [
        dataclasses.replace(one, held_out=is_held_out(one.path, one.symbol, share)) for one in made
    ]


def clean(
    made: Sequence[samples.Sample], definitions: Iterable[chunks.Chunk], share: float
) -> verdicts.Sifted:
    """Rejects training samples that give away what is held out.

    Args:
        made: all samples, marked.
        definitions: all of the repository, held out or not: what many of them share counts for
            nothing, and held-out ones are not given away whether they became samples or not.
        share: of the definitions that is held out.
    """
    secret = _secret_runs(made, definitions, share)
    kept, rejected = list[samples.Sample](), list[verdicts.Rejected]()
    for sample in made:
        told = None if sample.held_out else _shared(sample, secret)
        if told is None:
            kept.append(sample)
        else:
            detail = f"it shares {RUN_TOKENS} tokens with {told}, which is held out"
            rejected.append(verdicts.Rejected(sample, verdicts.Reason.LEAKED, detail))
    return verdicts.Sifted(tuple(kept), tuple(rejected))


def _secret_runs(
    made: Iterable[samples.Sample], definitions: Iterable[chunks.Chunk], share: float
) -> dict[int, str]:
    """Runs of held-out bodies and answers, by hash, with the definition that each is of."""
    # A class is the sum of its methods, each of which is a definition of its own.
    parts = [chunk for chunk in definitions if chunk.form != chunks.Form.CLASS]
    found: dict[int, str] = {}
    for chunk in parts:
        if is_held_out(chunk.path, chunk.symbol, share):
            # A body shorter than a run is known by its head.
            short = len(source.tokens(chunk.body)) < RUN_TOKENS
            told = chunk.text if short else chunk.body
            found.update(dict.fromkeys(_runs(told), chunk.symbol))
    answers = {one.output: one.symbol for one in made if one.held_out}
    for output, symbol in answers.items():
        found.update(dict.fromkeys(_runs(output), symbol))
    # Tests have no definition of their own: each counts once, whatever it is the test of.
    texts = {chunk.text for chunk in parts}
    texts |= {one.output for one in made if one.kind == samples.Kind.TEST}
    common = collections.Counter(run for text in texts for run in set(_runs(text)) if run in found)
    return {run: symbol for run, symbol in found.items() if common[run] < _COMMON_FROM}


def _shared(sample: samples.Sample, secret: dict[int, str]) -> str | None:
    for text in (sample.input, sample.output):
        for run in _runs(text):
            if run in secret:
                return secret[run]
    return None


def _runs(text: str) -> Iterator[int]:
    """Hashes of all runs of tokens; they differ from process to process."""
    told = source.tokens(text)
    for at in range(len(told) - RUN_TOKENS + 1):
        yield hash(told[at : at + RUN_TOKENS])
