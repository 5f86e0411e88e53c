"""Fifty bad cards on their way to publication, and what stops each of them.

Every one goes through the distiller's filters, the trainer with its whole recipe, the gate and the
router's rehearsal, beside good cards that are installed. One that is published is counted, told,
and taken away again. `python -m benchmarks.training.bad_cards` prints the rows, with two numbers
those of fewer good sets and of fewer bad ones of each flaw. Every outcome is appended to
`.bench/training/outcomes.jsonl` as soon as it is there.
"""

from __future__ import annotations

import asyncio
import collections
import sys
from collections.abc import Sequence

import torch

from benchmarks import results
from benchmarks.training import house as houses
from benchmarks.training import made_up, sequence
from benchmarks.training import work as works
from shared import settings as config
from shared import telemetry

OF_EACH = 10
FIRST_SEED = 2_000
_SEEDS_OF_A_FLAW = 100
_VICTIMS = 5
"""Good sets whose questions hijackers take."""


def sets(of_each: int = OF_EACH) -> list[made_up.FactSet]:
    """The bad sets: one of each flaw, then the next of each."""
    victims = sequence.sets(_VICTIMS)
    return [
        made_up.bad(flaw, number, FIRST_SEED + _SEEDS_OF_A_FLAW * place + number, victims)
        for number in range(of_each)
        for place, flaw in enumerate(made_up.BAD)
    ]


async def learn(house: houses.House, of_each: int = OF_EACH) -> list[works.Learned]:
    """Has every bad set learned; the house is left as it was."""
    found = []
    for told in sets(of_each):
        one = await house.learn(told)
        found.append(one)
        sequence.note(one)
        if one.card:
            await house.remove(one.card)
    return found


def rows(learned: Sequence[works.Learned]) -> list[results.Row]:
    """How many were published, in all and of each flaw, and what stopped the others."""
    published = [one for one in learned if one.card]
    found = [
        results.Row("bad_published", len(published), f"of {len(learned)}", most=0),
    ]
    for flaw in made_up.BAD:
        own = [one for one in learned if one.told.flaw is flaw]
        stages = collections.Counter(
            (one.stage or "nothing") + (f" ({one.told.variant})" if one.told.variant else "")
            for one in own
        )
        found.append(
            results.Row(
                f"bad_published_{flaw.name.lower()}",
                sum(bool(one.card) for one in own),
                f"of {len(own)}",
                note="stopped by " + ", ".join(f"{s}: {n}" for s, n in stages.most_common()),
            )
        )
    return found


async def _measured(settings: config.Settings, good: int, of_each: int) -> list[results.Row]:
    async with houses.opened(settings) as house:
        before = await sequence.base_states(house)
        found = await sequence.rows(house, await sequence.learn(house, good), before)
        # It takes long: what is there is told.
        results.print_rows("training", found)
        return [*found, *rows(await learn(house, of_each))]


def measure(good: int = sequence.CARDS, of_each: int = OF_EACH) -> list[results.Row]:
    """Good cards in sequence and bad ones beside them; two hours on one core.

    Args:
        good: how many good sets.
        of_each: how many bad ones of each flaw.
    """
    torch.set_num_threads(1)
    sequence.OUTCOMES.unlink(missing_ok=True)
    return asyncio.run(_measured(config.load(), good, of_each))


if __name__ == "__main__":
    telemetry.configure(config.Telemetry(log_level="error"), "bench")
    results.print_rows("training", measure(*map(int, sys.argv[1:])))
