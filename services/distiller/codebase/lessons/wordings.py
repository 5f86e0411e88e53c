"""How lessons are asked for: a handful of wordings of each kind, chosen by digest.

People word the same wish in many ways; a model that saw one wording only would wait for it.
"""

from __future__ import annotations

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import source
from shared.flight import samples

_WORDINGS = {
    samples.Kind.EXPLAIN: (
        "What does the {form} `{symbol}` do?",
        "Explain this {form}.",
        "Say in a few words what `{symbol}` is for.",
        "Write the docstring of this {form}.",
        "Document `{symbol}` from `{path}`.",
    ),
    samples.Kind.WRITE: (
        "Write the {form} `{symbol}` as its docstring says.",
        "Implement `{symbol}` in `{path}`.",
        "Complete this {form}: write it as a whole.",
        "Here are the signature and the docstring of a {form}. Write all of it.",
        "Implement the {form} `{symbol}`.",
    ),
    samples.Kind.TEST: (
        "Write a test of the {form} `{symbol}`.",
        "Test `{symbol}` from `{path}`.",
        "How would you test this {form}?",
        "Write a test for this {form} in the style of this code base.",
    ),
    samples.Kind.REFACTOR: (
        "Change `{symbol}` for this commit: {subject}",
        "{subject}: change this {form} accordingly.",
        "Bring this {form} up to date. The commit says: {subject}",
        "Rewrite `{symbol}` in `{path}`: {subject}",
    ),
    samples.Kind.FIX: (
        "There is a fault in this {form}. Mend it.",
        "Find and fix the bug in `{symbol}`.",
        "`{symbol}` does not do what it should. Write it right.",
        "One thing is wrong in this {form} from `{path}`. Correct it.",
        "Fix this {form}.",
    ),
}


def wording(kind: samples.Kind, chunk: chunks.Chunk, subject: str = "") -> str:
    """What is asked for; always the same for the same definition.

    Args:
        kind: any but `Kind.COMPLETE`, which has no instruction.
        chunk: what is asked about.
        subject: first line of the commit's message, for `Kind.REFACTOR`.
    """
    choices = _WORDINGS[kind]
    chosen = choices[source.number(kind, chunk.path, chunk.symbol) % len(choices)]
    return chosen.format(form=chunk.form, symbol=chunk.symbol, path=chunk.path, subject=subject)
