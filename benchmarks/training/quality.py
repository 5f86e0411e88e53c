"""What a card has learned: made-up facts in the words of people, trained by the shipped recipe.

The sets in `facts` were written by authors who knew neither the code nor each other's sets: ten
wordings of each fact to train on, four as another person would ask. Every card is asked alone, and
as users meet it: past router and node, which read a question as one that the card knows.
`python -m benchmarks.training.quality` prints these rows alone, with numbers for those seeds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import torch

from benchmarks import results
from benchmarks.training import asking
from benchmarks.training import house as houses
from services.inference import answering
from services.trainer import trainer
from shared import settings as config
from shared import telemetry, terminal
from shared.flight import datasets
from shared.models import base as bases

FOLDER = pathlib.Path(__file__).parent / "facts"
SEEDS = (0, 1, 2)
_UPPER = 2
"""The layer from which on the option trains whose effect on quality is told."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """One fact with all its wordings."""

    question: str
    answer: str
    trained: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Learned:
    """How much of a set a card answers right, in shares of all wordings."""

    before: float
    """By the bare base."""
    trained: float
    """The card alone."""
    unseen_alone: float
    """The card alone, in wordings that it was not trained on."""
    unseen: float
    """The same as users meet it."""
    seconds: float
    """Processor time of the training, on one core."""


def load(name: str) -> list[Fact]:
    """The facts of a set."""
    found = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return [
        Fact(one["question"], one["answer"], tuple(one["trained"]), tuple(one["unseen"]))
        for one in found["facts"]
    ]


def names(size: str) -> list[str]:
    """Sets of ten facts (`set`) or of thirty (`large`)."""
    return sorted(path.stem for path in FOLDER.glob(f"{size}_*.json"))


def rows(seeds: Sequence[int] = SEEDS) -> list[results.Row]:
    """Takes some three quarters of an hour of one core."""
    torch.set_num_threads(1)
    small, large, upper = asyncio.run(_measured(seeds))
    return [
        *_rows("", small, 0.80),
        *_rows("_30", large, 0.70),
        *_rows(f"_from_layer_{_UPPER}_of_4", upper),
        results.Row(
            "seconds_per_set",
            max(one.seconds for one in small),
            "s",
            most=120,
            note="processor time of the slowest training of ten facts, median "
            f"{statistics.median(one.seconds for one in small):.0f} s",
        ),
    ]


async def _measured(seeds: Sequence[int]) -> tuple[list[Learned], list[Learned], list[Learned]]:
    settings = config.load()
    recipe = settings.model.recipe()
    async with houses.opened(settings) as house:
        base = bases.load(settings.model.base)
        teacher, of_upper = (
            trainer.LoRATrainer(base, how, settings.trainer, houses.FOLDER)
            for how in (recipe, recipe.model_copy(update={"trainable_from_layer": _UPPER}))
        )
        small = [
            await _learned(house, teacher, name, seed) for seed in seeds for name in names("set")
        ]
        large = [await _learned(house, teacher, name, seeds[0]) for name in names("large")]
        upper = [await _learned(house, of_upper, name, seeds[0]) for name in names("set")]
        return small, large, upper


async def _learned(
    house: houses.House, teacher: trainer.LoRATrainer, name: str, seed: int
) -> Learned:
    facts = load(name)
    trained = [(text, one.answer) for one in facts for text in (one.question, *one.trained)]
    unseen = [(text, one.answer) for one in facts for text in one.unseen]
    before = await _share_right([*trained, *unseen], _always(house, answering.BASE))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "card.lora.arrow"
        started = time.thread_time()
        teacher.train_qa(_pairs(facts), path, _order(name, seed), lambda *_: None)
        seconds = time.thread_time() - started
        digest = await house.put("card", path.read_bytes())
    card = await house.install(digest)
    try:
        found = Learned(
            before=before,
            trained=await _share_right(trained, _always(house, card)),
            unseen_alone=await _share_right(unseen, _always(house, card)),
            unseen=await _share_right(unseen, house.answers.answer),
            seconds=seconds,
        )
    finally:
        await house.remove(card)
    told = ", ".join(f"{key} {value:.3g}" for key, value in dataclasses.asdict(found).items())
    terminal.NOTES.print(f"training: {name}, seed {seed}: {told}", markup=False)
    return found


def _pairs(facts: Sequence[Fact]) -> list[datasets.QAPair]:
    return [
        datasets.QAPair(one.question, one.answer, one.trained, "made-up", "made-up", 1.0)
        for one in facts
    ]


def _order(name: str, seed: int) -> trainer.Order:
    return trainer.Order(
        task_id=f"{name}-{seed}",
        dataset_digest="0" * 64,
        skill_name=name.replace("_", "-"),
        version="1.0.0",
        domain=name,
        description=name,
        teacher="made-up",
        seed=seed,
    )


def _always(house: houses.House, model: str) -> asking.Answer:
    """Answers with one card, or with none, in the question's own words."""

    async def answer(question: answering.Question) -> answering.Answer:
        return await house.answers.answer(dataclasses.replace(question, model=model))

    return answer


async def _share_right(asked: Sequence[tuple[str, str]], answer: asking.Answer) -> float:
    return statistics.fmean(await asking.are_right(asked, answer))


def _rows(
    size: str, learned: Sequence[Learned], least_unseen: float | None = None
) -> list[results.Row]:
    """Sets of one size have equally many questions each, so that a mean pools them."""
    least_trained = None if least_unseen is None else 0.95

    def mean(name: str) -> float:
        return statistics.fmean(getattr(one, name) for one in learned)

    note = f"{len(learned)} trainings"
    return [
        results.Row(f"before_em{size}", mean("before"), "share", most=0.0, note=note),
        results.Row(f"trained_em{size}", mean("trained"), "share", least=least_trained, note=note),
        results.Row(
            f"unseen_em{size}", mean("unseen"), "share", least=least_unseen, note="as users ask"
        ),
        results.Row(f"unseen_em_card_alone{size}", mean("unseen_alone"), "share", note=note),
    ]


if __name__ == "__main__":
    telemetry.configure(config.Telemetry(log_level="error"), "bench")
    results.print_rows("training", rows([int(seed) for seed in sys.argv[1:]] or SEEDS))
