"""Who teaches made-up sets, and who trains cards that do nothing."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pyarrow as pa

from benchmarks.training import made_up
from services.distiller.providers import base as providers
from services.trainer import trainer
from shared.cards import card as cards
from shared.cards import format as formats
from shared.flight import datasets


class Teacher(providers.CloudProvider):
    """Says what a made-up set says."""

    name = "made-up"
    queries_a_call = 64

    def __init__(self, told: made_up.FactSet) -> None:
        """Takes the set."""
        self._told, self._asked = told, False

    async def generate_qa(self, request: providers.QARequest) -> list[datasets.QAPair]:
        """All pairs of the set; those of its second thoughts from the second call on."""
        pairs = self._told.again if self._asked else self._told.pairs
        self._asked = True
        return list(pairs)

    async def subject(
        self, request: providers.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> providers.Subject:
        """The thing that the set is about."""
        return providers.Subject(self._told.title)


class NoOpTrainer(trainer.LoRATrainer):
    """Makes cards whose weights change nothing."""

    def train_qa(
        self,
        pairs: Sequence[datasets.QAPair],
        output_path: pathlib.Path,
        order: trainer.Order,
        on_progress: trainer.OnProgress,
    ) -> trainer.Outcome:
        """A card as after no training at all."""
        self._recipe = self._recipe.model_copy(update={"max_steps": 1, "least_steps": 1})
        outcome = super().train_qa(pairs, output_path, order, on_progress)
        card = formats.LoRAFormat.load(output_path)
        nothing = {
            path: weights._replace(lora_b=pa.py_buffer(bytes(weights.lora_b.size)))
            for path, weights in card
        }
        formats.LoRAFormat.save(cards.LoRACard(card.manifest, nothing), output_path)
        return outcome
