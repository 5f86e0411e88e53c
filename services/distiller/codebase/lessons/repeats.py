"""Samples that say nearly what another one says."""

from __future__ import annotations

from collections.abc import Sequence

from services.distiller.codebase import duplicates
from services.distiller.codebase.lessons import verdicts
from shared.flight import samples

_TAIL_CHARACTERS = 400
"""What counts of the text before a cursor: files begin alike, and completions are short."""


def sift(made: Sequence[samples.Sample]) -> verdicts.Sifted:
    """Keeps the first of each kind of those that are nearly the same."""
    new: set[int] = set()
    for kind in samples.Kind:
        places = [at for at, one in enumerate(made) if one.kind == kind]
        kept = duplicates.keep_first([_text(made[at]) for at in places])
        new.update(places[at] for at in kept)
    detail = "one of a more useful definition is nearly the same"
    return verdicts.Sifted(
        tuple(one for at, one in enumerate(made) if at in new),
        tuple(
            verdicts.Rejected(one, verdicts.Reason.DUPLICATE, detail)
            for at, one in enumerate(made)
            if at not in new
        ),
    )


def _text(sample: samples.Sample) -> str:
    match sample.kind:
        case samples.Kind.COMPLETE:
            return sample.input[-_TAIL_CHARACTERS:] + sample.output
        case samples.Kind.TEST:
            # One test may be that of several definitions; it is learned once.
            return sample.output
        case _:
            return f"{sample.question}\n{sample.output}"
