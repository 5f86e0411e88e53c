"""What a card learns from this very repository, asked of definitions that were kept from training.

Lessons are made offline, the embedded base learns them, and answers beside the bare base.
Everything runs through what production runs: the distiller's generator, the trainer's manager, the
card's file and the gate's proof.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence

import torch

from benchmarks import results
from services.distiller.codebase import generator
from services.trainer import gate, trainer
from services.trainer.specialist import manager, proof
from shared import codebase_settings
from shared import settings as config
from shared.cards import format as formats
from shared.flight import samples as flight
from shared.models import base as bases

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = (1, 2)
_LEAST_SAMPLES, _LEAST_DROP = 10, 0.2
_LEAST_GAIN = 1e-3
"""Above 0: one more of some hundred."""


@dataclasses.dataclass(frozen=True)
class Card:
    """One card, and the bare base beside it."""

    bare: proof.Figures
    own: proof.Figures
    known: gate.Row
    outcome: trainer.Outcome

    @property
    def drop(self) -> float:
        """Share by which the perplexity fell."""
        return 1 - self.own.perplexity / self.bare.perplexity

    @property
    def gain(self) -> float:
        """Share of the held-out cursors' next words that it has exact beyond the bare base's."""
        return (self.own.words - self.bare.words) / len(self.bare.completed)


def rows() -> list[results.Row]:
    """`samples`, `perplexity_drop`, `completion_gain`, and what they are made of."""
    taught = asyncio.run(
        generator.DatasetGenerator(codebase_settings.Codebase()).generate(ROOT)
    ).samples
    kinds = Counter(sample.kind.value for sample in taught)
    held_out = [sample for sample in taught if sample.held_out]
    definitions = len({(sample.path, sample.symbol) for sample in held_out})
    found = results.Row(
        "samples",
        len(taught),
        "samples",
        least=_LEAST_SAMPLES,
        note=", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        + f"; {len(held_out)} samples of {definitions} definitions held out",
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [found, *compared([trained(taught, seed) for seed in SEEDS])]
    finally:
        torch.set_num_threads(threads)


def trained(
    taught: Sequence[flight.Sample],
    seed: int,
    how: codebase_settings.Specialist | None = None,
    tell: Callable[..., None] = lambda *_: None,
) -> Card:
    """A card as the trainer trains it on one core, proved on what is held out."""
    base = bases.load(bases.EMBEDDED)
    settings = config.Trainer(threads=1, specialist=how or codebase_settings.Specialist())
    order = trainer.Order(
        task_id="bench",
        dataset_digest="0" * 64,
        skill_name="specialist-skillmesh",
        version="1.0.0",
        domain="code",
        description="this repository",
        teacher=flight.BY_REPOSITORY,
        seed=seed,
        kind="samples",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"draft{formats.SUFFIX}"
        training = manager.TrainingManager(
            base, config.Model().recipe(), settings, pathlib.Path(folder)
        )
        outcome = training.train(taught, path, order, tell)
        card = formats.LoRAFormat.load(path)
        return Card(*training.measured(card, taught, tell), outcome)


def compared(found: Sequence[Card]) -> list[results.Row]:
    """The rows of several seeds: the worst of each must reach its target."""
    perplexity = statistics.median(one.own.perplexity for one in found)
    before = statistics.median(one.bare.perplexity for one in found)
    cursors = len(found[0].bare.completed)

    def share(of: Callable[[Card], int]) -> float:
        return statistics.median(map(of, found)) / cursors

    seeds = f"the worst of {len(found)} seeds"
    return [
        results.Row(
            "perplexity_drop",
            min(one.drop for one in found),
            "share",
            least=_LEAST_DROP,
            note=f"{seeds}; held-out definitions",
        ),
        results.Row(
            "completion_gain",
            min(one.gain for one in found),
            "share",
            least=_LEAST_GAIN,
            note=f"{seeds}; next words at {cursors} cursors; exact by card and base: "
            + ", ".join(f"{one.own.words} and {one.bare.words}" for one in found),
        ),
        results.Row(
            "perplexity",
            perplexity,
            "",
            peer="the bare base",
            peer_value=before,
            ratio=before / perplexity,
            note="median of seeds",
        ),
        results.Row(
            "completions",
            share(lambda one: one.own.words),
            "share",
            peer="the bare base",
            peer_value=share(lambda one: one.bare.words),
            note="next words, exact; median of seeds",
        ),
        results.Row(
            "lines_completed",
            share(lambda one: one.own.lines),
            "share",
            peer="the bare base",
            peer_value=share(lambda one: one.bare.lines),
            note="rests of lines, exact; median of seeds",
        ),
        results.Row(
            "known_unchanged",
            min(one.known.right / one.known.asked for one in found),
            "share",
            least=found[0].known.required,
            note=f"{seeds}; general questions answered as by the bare base",
        ),
        results.Row(
            "specialist_training_s",
            statistics.median(one.outcome.seconds for one in found),
            "s",
            note=f"{found[0].outcome.steps} steps, one core beside other work",
        ),
    ]
