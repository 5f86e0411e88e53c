"""What becomes of a teacher's pairs before anyone trains on them.

In the order of the flow: `valid`, `merged`, `unambiguous`, `capped`, and, last of all, `held_out`.
All are plain functions from pairs to pairs; none asks a model.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence, Set

from services.distiller import wording
from shared.flight import datasets

LONGEST_CHARACTERS = 400
"""Of a question and of an answer: longer ones are essays, which small models learn badly."""
_SURELY_ONE_FROM = 4
"""From this many other wordings on, one at least is held out."""


def valid(pairs: Iterable[datasets.QAPair]) -> list[datasets.QAPair]:
    """Drops pairs and wordings that are empty, too long, or that answer with the question."""
    found = []
    for pair in pairs:
        answer = _one_line(pair.answer)
        if not wording.key(answer) or len(answer) > LONGEST_CHARACTERS:
            continue
        questions = [_one_line(text) for text in (pair.question, *pair.paraphrases)]
        usable = [text for text in questions if _usable(text, answer)]
        # The main question goes first; where it is unusable the fact as a whole is doubtful.
        if usable and usable[0] == questions[0]:
            found.append(_with_wordings(dataclasses.replace(pair, answer=answer), usable))
    return found


def merged(pairs: Iterable[datasets.QAPair]) -> list[datasets.QAPair]:
    """Makes one pair of those that share a question or wording and have the same answer."""
    found: list[datasets.QAPair] = []
    owner: dict[tuple[str, str], int] = {}
    for pair in pairs:
        answer = wording.key(pair.answer)
        keys = [(wording.key(text), answer) for text in wordings(pair)]
        at = next((owner[key] for key in keys if key in owner), len(found))
        if at == len(found):
            found.append(_with_wordings(pair, wordings(pair)))
        else:
            found[at] = _with_wordings(found[at], [*wordings(found[at]), *wordings(pair)])
        owner.update(dict.fromkeys(keys, at))
    return found


def unambiguous(pairs: Sequence[datasets.QAPair], queries: Set[str]) -> list[datasets.QAPair]:
    """Removes wordings that stand under facts with different answers.

    No training can satisfy such a wording. A user's query stays with the fact that the teacher
    is surest of, by score, then by order: somebody is waiting for its answer.

    Args:
        pairs: already merged.
        queries: keys of the users' queries, see `wording.key`.
    """
    owners: dict[str, list[int]] = {}
    for at, pair in enumerate(pairs):
        for text in wordings(pair):
            owners.setdefault(wording.key(text), []).append(at)
    keeper: dict[str, int] = {}
    for key, holders in owners.items():
        if len({wording.key(pairs[at].answer) for at in holders}) == 1:
            keeper[key] = holders[0]
        elif key in queries:
            keeper[key] = max(holders, key=lambda at: (pairs[at].score, -at))
    found = []
    for at, pair in enumerate(pairs):
        kept = [text for text in wordings(pair) if keeper.get(wording.key(text)) == at]
        if kept:
            found.append(_with_wordings(pair, kept))
    return found


def capped(pairs: Sequence[datasets.QAPair], queries: Set[str], most: int) -> list[datasets.QAPair]:
    """At most so many pairs, those that answer users' queries first.

    Args:
        pairs: in the teacher's order.
        queries: keys of the users' queries.
        most: how many.
    """
    ordered = sorted(pairs, key=lambda pair: queries.isdisjoint(_keys(pair)))
    return ordered[:most]


def held_out(pair: datasets.QAPair, queries: Set[str], share: float) -> datasets.QAPair:
    """Keeps some of a pair's wordings from training, always the same ones.

    Args:
        pair: nothing of it is held out yet.
        queries: keys of the users' queries, which are always trained.
        share: of the paraphrases; rounded down, but at least one of four or more.
    """
    others = pair.paraphrases
    count = int(share * len(others))
    if share > 0 and len(others) >= _SURELY_ONE_FROM:
        count = max(count, 1)
    free = [text for text in others if wording.key(text) not in queries]
    # By hash: the teacher's order says how near a wording is to the question, and the gate should
    # see near and far ones alike.
    chosen = set(sorted(free, key=lambda text: hashlib.sha256(text.encode()).digest())[:count])
    return dataclasses.replace(
        pair,
        paraphrases=tuple(text for text in others if text not in chosen),
        held_out=tuple(text for text in others if text in chosen),
    )


def wordings(pair: datasets.QAPair) -> list[str]:
    """The question, then its other wordings, held-out ones last."""
    return [pair.question, *pair.paraphrases, *pair.held_out]


def _keys(pair: datasets.QAPair) -> set[str]:
    return {wording.key(text) for text in wordings(pair)}


def _with_wordings(pair: datasets.QAPair, texts: Sequence[str]) -> datasets.QAPair:
    """The pair with the first text as its question and the others, once each, beside it."""
    first_of: dict[str, str] = {}
    for text in texts:
        first_of.setdefault(wording.key(text), text)
    question, *others = first_of.values()
    return dataclasses.replace(pair, question=question, paraphrases=tuple(others), held_out=())


def _usable(question: str, answer: str) -> bool:
    key = wording.key(question)
    return bool(key) and key != wording.key(answer) and len(question) <= LONGEST_CHARACTERS


def _one_line(text: str) -> str:
    return " ".join(text.split())
