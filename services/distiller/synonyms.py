"""Says a question in other words of the same meaning, from a lexicon written for this project.

Each line of `synonyms.tsv` is a word or phrase and what may stand in its place, in the same form.
String work alone; whether the meaning was kept is for an embedder to say, see `rewording`.
"""

from __future__ import annotations

import functools
import pathlib
import random
import re

_PATH = pathlib.Path(__file__).parent / "synonyms.tsv"
_LONGEST_PHRASE = 4
_MOST_CHANGES = 4


def variants(question: str, thing: str, count: int) -> list[str]:
    """Up to `count` different versions of a question with words replaced, always the same ones.

    Args:
        question: one sentence or two.
        thing: what it is about; its words stay as they are.
        count: how many.
    """
    rng = random.Random(question)
    places = _places(question, thing)
    if not places:
        return []
    found: dict[str, None] = {}
    for _ in range(count * 4):
        most = min(_MOST_CHANGES, len(places))
        chosen = rng.sample(places, rng.randint((most + 1) // 2, most))
        text = question
        # From the end, so that the places before stay where they are.
        for start, end, substitutes in sorted(chosen, reverse=True):
            text = text[:start] + rng.choice(substitutes) + text[end:]
        found[text[:1].upper() + text[1:]] = None
        if len(found) == count:
            break
    return list(found)


@functools.cache
def lexicon(path: pathlib.Path = _PATH) -> dict[str, tuple[str, ...]]:
    """Words and phrases in lower case, each with what may stand in its place."""
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {head.lower(): tuple(substitutes.split("|")) for head, substitutes in rows}


def _places(question: str, thing: str) -> list[tuple[int, int, tuple[str, ...]]]:
    """Where something can be replaced: start, end, substitutes. Longest phrases, no overlaps."""
    known = lexicon()
    words = [match.span() for match in re.finditer(r"[^\W\d_][\w'’-]*", question)]
    at = question.casefold().find(thing.casefold()) if thing else -1
    kept = range(at, at + len(thing)) if at >= 0 else range(0)
    found, index = [], 0
    while index < len(words):
        for length in range(min(_LONGEST_PHRASE, len(words) - index), 0, -1):
            start, end = words[index][0], words[index + length - 1][1]
            phrase = question[start:end]
            substitutes = known.get(phrase.lower())
            # A capital within the sentence is a name.
            named = index > 0 and phrase != phrase.lower()
            if substitutes and not named and not (start in kept or end - 1 in kept):
                found.append((start, end, substitutes))
                index += length
                break
        else:
            index += 1
    return found
