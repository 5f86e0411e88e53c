"""What becomes of a teacher's pairs by their wordings alone, before anyone trains on them.

In the order of the flow: `valid`, `merged`, `unambiguous`, `capped`, and, last of all, `held_out`.
All are plain functions of pairs; none asks a model. Checks of what pairs say are in `quality`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence, Set

from services.distiller import wording
from services.distiller.quality import copies, verdict
from shared import questions
from shared.flight import datasets

LONGEST_CHARACTERS = questions.LONGEST_TRAINED
_SURELY_ONE_FROM = 2
"""From this many other wordings on, one at least is held out."""
_OTHERS_SHARE = 4
"""One in so many places of a full skill is for what follows from facts or contrasts with them."""


def valid(pairs: Iterable[datasets.QAPair]) -> verdict.Sifted:
    """Rejects pairs that are empty, too long, or that answer with the question.

    Wordings that are any of that, or near copies of one before, leave a pair that stays.
    """
    return verdict.sift(map(_valid, pairs))


def _valid(
    pair: datasets.QAPair,
) -> tuple[datasets.QAPair, tuple[verdict.Reason, str] | None]:
    answer = _one_line(pair.answer)
    question, *others = (_one_line(text) for text in (pair.question, *pair.paraphrases))
    for part, text in (("question", question), ("answer", answer)):
        if not wording.key(text):
            return pair, (verdict.Reason.SHAPE, f"its {part} is empty")
        if len(text) > LONGEST_CHARACTERS:
            return pair, (verdict.Reason.LENGTH, f"its {part} has {len(text)} characters")
    # Where the main question is unusable the fact as a whole is doubtful.
    if not _usable(question, answer):
        return pair, (verdict.Reason.SHAPE, "it answers with its question")
    usable = [question, *(text for text in others if _usable(text, answer))]
    return _with_wordings(dataclasses.replace(pair, answer=answer), usable), None


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


def unambiguous(pairs: Sequence[datasets.QAPair], queries: Set[str]) -> verdict.Sifted:
    """Removes wordings that stand under facts with different answers, and pairs that had no other.

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

    def owned() -> Iterator[tuple[datasets.QAPair, tuple[verdict.Reason, str] | None]]:
        for at, pair in enumerate(pairs):
            kept = [text for text in wordings(pair) if keeper.get(wording.key(text)) == at]
            if kept:
                yield _with_wordings(pair, kept), None
            else:
                yield pair, (verdict.Reason.AMBIGUOUS, "others answer all its wordings")

    return verdict.sift(owned())


def distinct(pair: datasets.QAPair, queries: Set[str]) -> datasets.QAPair:
    """The pair without wordings that are near copies of one before; users' queries stay."""
    return _with_wordings(pair, copies.distinct(wordings(pair), queries))


def capped(pairs: Sequence[datasets.QAPair], queries: Set[str], most: int) -> verdict.Sifted:
    """At most so many pairs: those that answer users' queries, then facts, then the others.

    The others have at least a quarter of the places, where there are so many of them.

    Args:
        pairs: in the teacher's order.
        queries: keys of the users' queries.
        most: how many.
    """
    asked = [pair for pair in pairs if not queries.isdisjoint(_keys(pair))]
    unasked = [pair for pair in pairs if queries.isdisjoint(_keys(pair))]
    facts = [pair for pair in unasked if pair.kind is datasets.Kind.FACT]
    others = [pair for pair in unasked if pair.kind is not datasets.Kind.FACT]
    places = max(0, most - len(asked))
    room = places - min(len(others), most // _OTHERS_SHARE)
    chosen = [*asked, *facts[: max(0, room)]]
    chosen += others[: max(0, most - len(chosen))]
    surplus = set(map(id, pairs)) - set(map(id, chosen[:most]))
    return verdict.Sifted(
        tuple(chosen[:most]),
        tuple(
            verdict.Rejected(pair, verdict.Reason.SURPLUS, f"the skill has {most} pairs")
            for pair in pairs
            if id(pair) in surplus
        ),
    )


def held_out(
    pairs: Sequence[datasets.QAPair], queries: Set[str], share: float
) -> list[datasets.QAPair]:
    """Keeps some wordings of every pair from training, always the same ones.

    None of them is a near copy of a trained wording with the same answer: where only such are
    left, the trained wordings that resemble it are given up, unless users asked them.

    Args:
        pairs: nothing of them is held out yet.
        queries: keys of the users' queries, which are always trained.
        share: of the paraphrases; rounded down, but at least one of two or more.
    """
    found: list[datasets.QAPair] = list(pairs)
    same_answer: dict[str, list[int]] = {}
    for at, pair in enumerate(pairs):
        same_answer.setdefault(wording.key(pair.answer), []).append(at)
    for at, pair in enumerate(pairs):
        family = [found[other] for other in same_answer[wording.key(pair.answer)] if other != at]
        beside = [text for one in family for text in (one.question, *one.paraphrases)]
        beside += [text for one in family for text in one.held_out]
        found[at] = _held_out(pair, beside, queries, share)
    return found


def _held_out(
    pair: datasets.QAPair, beside: Sequence[str], queries: Set[str], share: float
) -> datasets.QAPair:
    others = pair.paraphrases
    count = int(share * len(others))
    if share > 0 and len(others) >= _SURELY_ONE_FROM:
        count = max(count, 1)
    # By hash: the teacher's order says how near a wording is to the question, and the gate should
    # see near and far ones alike.
    free = sorted(
        (text for text in others if wording.key(text) not in queries),
        key=lambda text: hashlib.sha256(text.encode()).digest(),
    )
    fixed = [pair.question, *beside, *(text for text in others if text not in free)]
    # Whatever resembles what must be trained can't be held out at all.
    fresh = [text for text in free if not copies.near(text, fixed, copies.NEAR_HELD_OUT)]
    apart = [
        text
        for text in fresh
        if not copies.near(text, (other for other in free if other != text), copies.NEAR_HELD_OUT)
    ]
    chosen = (apart + [text for text in fresh if text not in apart])[:count]
    trained = tuple(
        text
        for text in others
        if text not in chosen
        and (text not in free or not copies.near(text, chosen, copies.NEAR_HELD_OUT))
    )
    return dataclasses.replace(
        pair, paraphrases=trained, held_out=tuple(text for text in others if text in chosen)
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
