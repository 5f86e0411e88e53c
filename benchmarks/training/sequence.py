"""Twenty good cards learned one after the other and installed together.

How many of them the gate refuses, what the published ones answer when all are installed, and what
becomes of what the base knew. Everything passes through the house's gate, router and node.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from benchmarks import results
from benchmarks.training import asking, made_up
from benchmarks.training import house as houses
from benchmarks.training import work as works
from services.inference import answering
from shared import terminal
from shared.models.embedded.recipe import conversations
from shared.security import callers

CARDS = 20
FIRST_SEED = 1_000
"""No threshold was chosen by looking at sets of these seeds."""
OUTCOMES = houses.FOLDER / "outcomes.jsonl"
_TOP_K = 1_000


@dataclasses.dataclass(frozen=True)
class _Asked:
    question: str
    answer: str
    card: str
    """The one that should answer."""


def sets(count: int = CARDS) -> list[made_up.FactSet]:
    """The good sets that are measured."""
    return [made_up.good(FIRST_SEED + number) for number in range(count)]


async def learn(house: houses.House, count: int = CARDS) -> list[works.Learned]:
    """Learns good sets in sequence; what is published stays installed."""
    found = []
    for told in sets(count):
        found.append(await house.learn(told))
        note(found[-1])
    return found


async def rows(
    house: houses.House, learned: Sequence[works.Learned], before: np.ndarray | None = None
) -> list[results.Row]:
    """The figures with all cards installed.

    Args:
        house: with the cards of `learned`.
        learned: see `learn`.
        before: `base_states` before any card was installed.
    """
    published = [one for one in learned if one.card]
    refused = len(learned) - len(published)
    asked = [
        _Asked(question, answer, one.card)
        for one in published
        for question, answer in (
            *((pair.question, pair.answer) for pair in one.told.pairs),
            *one.told.unseen,
        )
    ]
    alone = list[bool]()
    for one in published:
        own = [question for question in asked if question.card == one.card]
        alone += await _are_right(own, _alone(house, one.card))
    together = await _are_right(asked, house.answers.answer)
    known = [_Asked(fact.questions[0], fact.answer, "") for fact in conversations.known_facts()]
    without = await _are_right(known, _base_alone(house))
    with_cards = await _are_right(known, house.answers.answer)
    found = [
        results.Row(
            "good_refused",
            refused / len(learned),
            "share",
            most=0.05,
            note=f"{refused} of {len(learned)}, after up to three trainings each; first trainings "
            f"refused: {sum(not one.tries[0].passed for one in learned if one.tries)}",
        ),
        results.Row(
            "old_cards_right",
            sum(together) / max(1, sum(alone)),
            "of alone",
            least=0.97,
            note=f"{len(published)} cards installed; {sum(together)} of {len(asked)} right, "
            f"{sum(alone)} when alone",
        ),
        results.Row(
            "known_right_with_card",
            sum(with_cards) / max(1, sum(without)),
            "of without",
            least=0.99,
            note=f"{sum(with_cards)} of {len(known)} right, {sum(without)} without cards",
        ),
    ]
    if before is not None:
        now = await base_states(house)
        changed = int(np.sum(before.view(np.uint32) != now.view(np.uint32)))
        found.append(results.Row("base_bits_changed", changed, "values", most=0))
    return found


async def base_states(house: houses.House) -> np.ndarray:
    """What the base without any card makes of known questions, float32 of (texts, hidden)."""
    texts = [fact.questions[0] for fact in conversations.known_facts()[:32]]
    return await house.engine.encode(texts)


def note(one: works.Learned) -> None:
    """Tells and keeps an outcome as soon as it is there."""
    line = {
        "set": one.told.name,
        "flaw": one.told.flaw,
        "variant": one.told.variant,
        "card": one.card,
        "stage": one.stage,
        "reason": one.reason,
        "tries": [[str(row) for row in proof.rows] for proof in one.tries],
    }
    with OUTCOMES.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    terminal.NOTES.print(
        f"  {one.told.name}: {'published' if one.card else f'stopped by {one.stage}'} after "
        f"{len(one.tries)} proofs",
        markup=False,
    )


def _alone(house: houses.House, card: str) -> asking.Answer:
    """Answers with one card, whatever the router thinks of the others."""

    async def route(
        query: str, no_learning: bool, deadline_s: float, tenants: callers.Tenants
    ) -> answering.Routing:
        decided = await house.router.select(query, top_k=_TOP_K)
        own = [one for one in decided.candidates if one.card == card]
        return answering.Routing(
            tuple(answering.Candidate(one.card, 1.0, one.similarity, one.read_as) for one in own)
        )

    return answering.Answering(house.engine, route, house.rewriting).answer


def _base_alone(house: houses.House) -> asking.Answer:
    async def answer(question: answering.Question) -> answering.Answer:
        return await house.answers.answer(dataclasses.replace(question, model=answering.BASE))

    return answer


async def _are_right(asked: Sequence[_Asked], answer: asking.Answer) -> list[bool]:
    return await asking.are_right([(one.question, one.answer) for one in asked], answer)
