"""Asks the questions of a demo, waits for what they make the cluster learn, and asks again.

Works on a running cluster; prints nothing but progress.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import time
from collections.abc import Sequence

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import following, questions
from shared import atomic, errors, grading
from shared import settings as config
from shared.cards import format as formats
from shared.flight import store
from shared.security import protection as protections

_FIND_S = 30.0


@dataclasses.dataclass(frozen=True)
class Question:
    """One question, before and after learning."""

    text: str
    expected: str
    before: domain.Answer
    after: domain.Answer

    @property
    def right_before(self) -> bool:
        """Whether the first answer was right."""
        return grading.is_right(self.before.text, self.expected)

    @property
    def right_after(self) -> bool:
        """Whether the last answer is right."""
        return grading.is_right(self.after.text, self.expected)


@dataclasses.dataclass(frozen=True)
class LearnedCard:
    """The card that came of it."""

    reference: str
    path: pathlib.Path
    """A copy of its file."""
    size_bytes: int
    rank: int
    modules: int


@dataclasses.dataclass(frozen=True)
class Outcome:
    """All that a demo found out."""

    document: str
    asked: tuple[Question, ...]
    unseen: tuple[Question, ...]
    unrewritten: tuple[Question, ...]
    """Those of `unseen`, put to the card itself: past the router and its rewriting."""
    known: tuple[Question, ...]
    tasks: tuple[domain.Task, ...]
    cards: tuple[LearnedCard, ...]
    swaps: tuple[domain.Swap, ...]
    learning_s: float
    """From the first question to the end of the last task."""


async def hold(
    services: peers.Peers, exam: questions.Exam, settings: config.Settings, cards_to: pathlib.Path
) -> Outcome:
    """Asks, waits, asks again.

    Args:
        services: the running cluster.
        exam: what to ask.
        settings: its addresses.
        cards_to: folder for copies of the learned cards.

    Raises:
        errors.PreconditionError: no question led to a learning task.
    """
    asked = [fact.ask for fact in exam.facts]
    unseen = [fact.unseen for fact in exam.facts]
    known = [known.ask for known in exam.known]
    # Those that start no learning come first: the others start it, and it takes the processor.
    unseen_before = await _ask(services, "rewordings, before", unseen)
    known_before = await _ask(services, "known questions, before", known)
    started = time.monotonic()
    asked_before = await _ask(services, "hard questions, before", asked, learning=True)
    tasks = await following.until_learned(services, await _task_ids(services, asked_before))
    learning_s = time.monotonic() - started
    asked_after = await _ask(services, "hard questions, after", asked)
    unseen_after = await _ask(services, "rewordings, after", unseen)
    known_after = await _ask(services, "known questions, after", known)
    learners = [answer.card or "base" for answer in asked_after]
    unrewritten = await _ask(services, "rewordings, the card alone", unseen, models=learners)
    answers = [fact.answer for fact in exam.facts]
    references = sorted({task.card for task in tasks if task.status == domain.COMPLETED})
    node = await services.inference.status()
    return Outcome(
        document=exam.document.name,
        asked=_questions(asked, answers, asked_before, asked_after),
        unseen=_questions(unseen, answers, unseen_before, unseen_after),
        unrewritten=_questions(unseen, answers, unseen_before, unrewritten),
        known=_questions(known, [one.answer for one in exam.known], known_before, known_after),
        tasks=tuple(tasks),
        cards=tuple([await _fetch(settings, card, cards_to) for card in references]),
        swaps=tuple(swap for swap in node.swaps if swap.card in references),
        learning_s=learning_s,
    )


async def _ask(
    services: peers.Peers,
    what: str,
    texts: Sequence[str],
    learning: bool = False,
    models: Sequence[str] = (),
) -> list[domain.Answer]:
    """Asks all at once, as many users would; answers in the order of the questions."""
    answered = 0
    with following.Bars() as bars:
        bars.show(what, 0.0, "asking")

        async def one(text: str, model: str) -> domain.Answer:
            nonlocal answered
            answer = await services.inference.ask(text, no_learning=not learning, model=model)
            answered += 1
            bars.show(what, answered / len(texts), "asking", f"{answered} of {len(texts)}")
            return answer

        chosen = models or ["auto"] * len(texts)
        return list(await asyncio.gather(*map(one, texts, chosen)))


async def _task_ids(services: peers.Peers, answers: Sequence[domain.Answer]) -> list[str]:
    events = [answer.event_id for answer in answers if answer.event_id]
    found = await asyncio.gather(*[services.factory.find_task(event, _FIND_S) for event in events])
    ids = list(dict.fromkeys(task.id for task in found if task is not None))
    if not ids:
        raise errors.PreconditionError(
            f"{len(events)} of {len(answers)} questions revealed a gap, and no learning task came "
            "of them; see the logs of router and factory"
        )
    return ids


async def _fetch(settings: config.Settings, reference: str, folder: pathlib.Path) -> LearnedCard:
    name, _, digest = reference.partition("@")
    data = await store.StoreConnection(
        settings, protection=protections.Protection.configured(settings)
    ).get(digest)
    card = formats.LoRAFormat.from_bytes(data, origin=reference)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.lora.arrow"
    atomic.write(path, data)
    return LearnedCard(reference, path, len(data), card.rank, len(card.modules))


def _questions(
    texts: Sequence[str],
    expected: Sequence[str],
    before: Sequence[domain.Answer],
    after: Sequence[domain.Answer],
) -> tuple[Question, ...]:
    return tuple(map(Question, texts, expected, before, after))
