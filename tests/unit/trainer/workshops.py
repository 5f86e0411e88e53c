"""A workshop whose trainer writes ready cards, with a store and a router in memory."""

from __future__ import annotations

import hashlib
import pathlib
import types
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.trainer import gate, pace, regression, trainer, workshop
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import datasets, samples
from tests import fakes

PAIR = datasets.QAPair(
    "Who built it?",
    "Ann",
    paraphrases=(),
    source="a.md",
    teacher="documents",
    score=1.0,
    held_out=("Its builder?", "Builder?"),
)
DATASET = datasets.to_bytes([PAIR])
SAMPLE = samples.Sample(
    samples.Kind.COMPLETE, "", "a = ", "1", "a.py", "a", "python", "", "", samples.BY_REPOSITORY
)
SAMPLES = samples.to_bytes([SAMPLE])
SAMPLES_DIGEST = hashlib.sha256(SAMPLES).hexdigest()
TRIGGERS = (gate.Trigger("Who built it?", "Ann"),)
GOOD, BAD = gate.Row("known", 9, 10, 0.85), gate.Row("known", 8, 10, 0.85)


class FakeTrainer:
    """A `LoRATrainer` that writes a ready card."""

    def __init__(self, *rows: gate.Row) -> None:
        self.rows = list(rows)
        self.trained: list[str] = []
        self.proved: list[Sequence[gate.Trigger]] = []
        self.previous: regression.Previous | None = None
        self.instead: Mapping[str, str] | None = None
        self.base = types.SimpleNamespace(
            fingerprint=fakes.tiny_card().manifest.base_model.fingerprint
        )
        self.cancelled = False
        self.stopping = False

    def train_qa(
        self,
        pairs: Sequence[datasets.QAPair],
        output_path: pathlib.Path,
        order: trainer.Order,
        on_progress: trainer.OnProgress,
    ) -> trainer.Outcome:
        if self.stopping:
            raise trainer.Cancelled
        assert list(pairs) == [PAIR]
        self.trained.append(order.task_id)
        on_progress(0.5, "half", pace.Pace(step=60, loss=0.5, tokens_per_s=150.0, left_s=9.0))
        formats.LoRAFormat.save(fakes.tiny_card(seed=order.seed), output_path)
        return trainer.Outcome(steps=120, final_loss=0.25, trained_right=1.0, seconds=3.0)

    def prove(
        self,
        card: cards.LoRACard,
        pairs: Sequence[datasets.QAPair],
        triggers: Sequence[gate.Trigger],
        on_progress: Callable[[float, str], None],
        previous: regression.Previous | None = None,
        instead: Mapping[str, str] | None = None,
    ) -> list[gate.Row]:
        assert list(pairs) == [PAIR]
        self.proved.append(triggers)
        self.previous, self.instead = previous, instead
        return self.rows

    def bystanders(self) -> list[str]:
        return ["Who is the pope?"]

    def seal(self, card: cards.LoRACard, rows: Sequence[gate.Row]) -> cards.LoRACard:
        # Any change does, so that the sealed card can be told from the draft.
        return card.with_manifest(card.manifest.model_copy(update={"description": "sealed"}))

    def cancel(self) -> None:
        self.cancelled = True


class FakeCoder:
    """A `TrainingManager` that writes a ready card of the code bases' route."""

    def __init__(self, row: gate.Row | None = None) -> None:
        self.row = row or gate.Row("perplexity", 500, 1000, 0.2)
        self.trained: list[str] = []
        self.proved = 0
        self.cancelled = False

    def train(
        self,
        taught: Sequence[samples.Sample],
        output_path: pathlib.Path,
        order: trainer.Order,
        on_progress: trainer.OnProgress,
    ) -> trainer.Outcome:
        assert list(taught) == [SAMPLE]
        self.trained.append(order.task_id)
        card = fakes.tiny_card(seed=order.seed)
        route = manifests.RoutingProfile(route=manifests.SPECIALIST_LOCAL)
        card = card.with_manifest(card.manifest.model_copy(update={"routing": route}))
        formats.LoRAFormat.save(card, output_path)
        return trainer.Outcome(steps=9, final_loss=0.5, trained_right=0.5, seconds=1.0)

    def prove(
        self, card: cards.LoRACard, asked: Sequence[samples.Sample], on_progress: object
    ) -> list[gate.Row]:
        assert list(asked) == [SAMPLE] and card.manifest.route == manifests.SPECIALIST_LOCAL
        self.proved += 1
        return [self.row]

    def cancel(self) -> None:
        self.cancelled = True


class FakeStore:
    """A card store's data plane in a dictionary."""

    def __init__(self) -> None:
        self.kept = {datasets.digest(DATASET): DATASET}
        self.puts: list[str] = []

    async def put(self, kind: str, data: bytes) -> str:
        self.puts.append(kind)
        digest = hashlib.sha256(data).hexdigest()
        self.kept[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        if digest not in self.kept:
            raise errors.NotFoundError(f"no {digest}")
        return self.kept[digest]


class FakeRouter:
    """Sends the wanted question to the draft, and others nowhere unless it is taken in.

    Reads every question as the wanted one, the shorter the less surely.
    """

    def __init__(self) -> None:
        self.away = False
        self.taken_in = False
        self.asked: list[tuple[str, ...]] = []

    async def rehearse(
        self, manifest: manifests.Manifest, digest: str, questions: Sequence[str]
    ) -> gate.Rehearsal:
        if self.away:
            raise errors.UnavailableError("the router is away")
        self.asked.append(tuple(questions))
        own, *others = questions
        card = f"{manifest.name}@{digest}"
        elsewhere = card if self.taken_in else ""
        tried = [gate.Tried(own, card, "", 1.0, own)]
        tried += [gate.Tried(q, elsewhere, "", len(q) / 20, own) for q in others]
        return gate.Rehearsal(tuple(tried), ())


ROUTING = (
    workshop.GateRow("routed", 1, 1, 1.0, True),
    workshop.GateRow("elsewhere", 1, 1, 0.96, True),
    workshop.GateRow("other_cards", 0, 0, 0.97, True),
    workshop.GateRow("robbed", 0, 0, 1.0, True),
)


async def report(share: float, detail: str, figures: Any = None) -> None:
    pass


def order(task_id: str = "t1", seed: int = 1) -> trainer.Order:
    return trainer.Order(
        task_id, datasets.digest(DATASET), "tiny", "1.0.0", "testing", "a card", "documents", seed
    )


@asynccontextmanager
async def opened(
    fake: FakeTrainer,
    store: FakeStore,
    folder: pathlib.Path,
    router: FakeRouter | None = None,
    rewriting: float | None = None,
    coder: FakeCoder | None = None,
    observer: workshop.Observer | None = None,
) -> AsyncIterator[workshop.Workshop]:
    lora_trainer: Any = fake
    specialist: Any = coder
    shop = workshop.Workshop(
        lora_trainer,
        store,
        folder,
        lambda: 0.0,
        fakes.signer(),
        router or FakeRouter(),
        config.Trainer(),
        rewriting,
        specialist,
        observer,
    )
    try:
        yield shop
    finally:
        await shop.close()


async def prove(shop: workshop.Workshop, draft_digest: str, task_id: str = "t1") -> workshop.Proved:
    return await shop.prove(task_id, datasets.digest(DATASET), draft_digest, TRIGGERS, report)
