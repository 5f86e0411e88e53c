from __future__ import annotations

import hashlib
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.trainer import gate, pace, service, trainer, workshop
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import keyring, signature
from shared.flight import datasets
from shared.pb import trainer_pb2, types_pb2
from tests import fakes

PAIR = datasets.QAPair(
    "Who built it?", "Ann", paraphrases=(), source="a.md", teacher="documents", score=1.0
)
DATASET = datasets.to_bytes([PAIR])
TRIGGERS = (gate.Trigger("Who built it?", "Ann"),)
GOOD, BAD = gate.Row("known", 9, 10, 0.85), gate.Row("known", 8, 10, 0.85)


class FakeTrainer:
    """A `LoRATrainer` that writes a ready card."""

    def __init__(self, *rows: gate.Row) -> None:
        self.rows = list(rows)
        self.trained: list[str] = []
        self.proved: list[Sequence[gate.Trigger]] = []
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
    ) -> list[gate.Row]:
        assert list(pairs) == [PAIR]
        self.proved.append(triggers)
        return self.rows

    def seal(self, card: cards.LoRACard, rows: Sequence[gate.Row]) -> cards.LoRACard:
        # Any change does, so that the sealed card can be told from the draft.
        return card.with_manifest(card.manifest.model_copy(update={"description": "sealed"}))

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
        return self.kept[digest]


async def report(share: float, detail: str, figures: Any = None) -> None:
    pass


def order(task_id: str = "t1", seed: int = 1) -> trainer.Order:
    return trainer.Order(
        task_id, datasets.digest(DATASET), "tiny", "1.0.0", "testing", "a card", "documents", seed
    )


@asynccontextmanager
async def opened(
    fake: FakeTrainer, store: FakeStore, folder: pathlib.Path
) -> AsyncIterator[workshop.Workshop]:
    lora_trainer: Any = fake
    shop = workshop.Workshop(lora_trainer, store, folder, lambda: 0.0, fakes.signer())
    try:
        yield shop
    finally:
        await shop.close()


async def prove(shop: workshop.Workshop, draft_digest: str, task_id: str = "t1") -> workshop.Proved:
    return await shop.prove(task_id, datasets.digest(DATASET), draft_digest, TRIGGERS, report)


async def test_a_task_is_trained_once_when_it_is_asked_twice(tmp_path: pathlib.Path) -> None:
    fake = FakeTrainer()
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order(), report)
        assert await shop.train(order(), report) == first
    assert fake.trained == ["t1"]
    draft = next((tmp_path / "t1").glob(f"*{formats.SUFFIX}"))
    assert first == workshop.Trained(
        draft_digest=hashlib.sha256(draft.read_bytes()).hexdigest(),
        draft_bytes=draft.stat().st_size,
        steps=120,
        final_loss=0.25,
        trained_right=1.0,
        seconds=3.0,
    )


async def test_nothing_is_done_again_when_the_trainer_came_back(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    async with opened(FakeTrainer(GOOD), store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    fresh = FakeTrainer(BAD)
    async with opened(fresh, store, tmp_path) as shop:
        assert await shop.train(order(), report) == trained
        assert await prove(shop, trained.draft_digest) == proved
    assert fresh.trained == [] and fresh.proved == []
    assert store.puts == ["card"]


@pytest.mark.parametrize("lost", ["trained.json", f"draft{formats.SUFFIX}"])
async def test_a_task_is_trained_again_when_its_result_was_lost(
    tmp_path: pathlib.Path, lost: str
) -> None:
    fake = FakeTrainer()
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order(), report)
        (tmp_path / "t1" / lost).unlink()
        assert await shop.train(order(), report) == first
    assert fake.trained == ["t1", "t1"]


async def test_a_task_is_trained_again_when_its_result_is_damaged(tmp_path: pathlib.Path) -> None:
    fake = FakeTrainer()
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order(), report)
        (tmp_path / "t1" / "trained.json").write_text('{"steps": 12')
        assert await shop.train(order(), report) == first
    assert fake.trained == ["t1", "t1"]


async def test_each_task_is_trained_when_two_are_asked(tmp_path: pathlib.Path) -> None:
    fake = FakeTrainer()
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order("t1", seed=1), report)
        second = await shop.train(order("t2", seed=2), report)
    assert fake.trained == ["t1", "t2"]
    assert first.draft_digest != second.draft_digest


async def test_the_sealed_card_is_uploaded_when_the_gate_is_passed(tmp_path: pathlib.Path) -> None:
    fake, store = FakeTrainer(GOOD), FakeStore()
    async with opened(fake, store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    assert proved.passed and proved.rows == (workshop.GateRow("known", 9, 10, 0.85, True),)
    assert fake.proved == [TRIGGERS]
    uploaded = store.kept[proved.card_digest]
    assert proved.card_bytes == len(uploaded)
    sealed = formats.LoRAFormat.from_bytes(uploaded)
    assert sealed.manifest.description == "sealed"
    trusted = keyring.Keyring(fakes.keyring(tmp_path))
    said = signature.Statement("tiny", "1.0.0", proved.card_digest, fakes.FINGERPRINT)
    assert signature.verify(proved.signature_json, said, trusted) == fakes.signer().key_id


async def test_nothing_is_uploaded_when_the_gate_fails(tmp_path: pathlib.Path) -> None:
    fake, store = FakeTrainer(GOOD, BAD), FakeStore()
    async with opened(fake, store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    assert not proved.passed and [row.passed for row in proved.rows] == [True, False]
    assert (proved.card_digest, proved.card_bytes, proved.signature_json) == ("", 0, "")
    assert store.puts == []


async def test_the_draft_is_refused_when_it_is_not_the_one_that_was_trained(
    tmp_path: pathlib.Path,
) -> None:
    fake = FakeTrainer(GOOD)
    async with opened(fake, FakeStore(), tmp_path) as shop:
        await shop.train(order(), report)
        with pytest.raises(errors.SkillmeshError):
            await prove(shop, "0" * 64)
    assert fake.proved == []


@pytest.mark.parametrize("task_id", ["", ".", "..", "../t1", "a/b", "/etc", "-t", "t\n", "x" * 129])
async def test_a_task_is_refused_when_its_id_is_no_plain_name(
    tmp_path: pathlib.Path, task_id: str
) -> None:
    fake, folder = FakeTrainer(GOOD), tmp_path / "tasks"
    async with opened(fake, FakeStore(), folder) as shop:
        with pytest.raises(errors.InvalidInputError, match="task_id"):
            await shop.train(order(task_id), report)
        with pytest.raises(errors.InvalidInputError, match="task_id"):
            await prove(shop, "0" * 64, task_id)
    assert fake.trained == [] and not folder.exists()


async def test_the_caller_is_told_to_ask_again_when_the_trainer_stops(
    tmp_path: pathlib.Path,
) -> None:
    fake = FakeTrainer()
    fake.stopping = True
    async with opened(fake, FakeStore(), tmp_path) as shop:
        with pytest.raises(errors.UnavailableError, match="ask again"):
            await shop.train(order(), report)
    assert fake.cancelled
    assert not (tmp_path / "t1" / "trained.json").exists()


async def test_the_stream_tells_speed_and_time_left_when_a_card_is_trained(
    tmp_path: pathlib.Path,
) -> None:
    request = trainer_pb2.TrainRequest(
        task_id="t1", dataset=types_pb2.Ticket(digest=datasets.digest(DATASET))
    )
    async with opened(FakeTrainer(), FakeStore(), tmp_path) as shop:
        train = service.TrainerService(shop, seed=0).Train
        updates = [update async for update in train(request, None)]
    pace_of = [(u.step, u.loss, u.tokens_per_s, u.left_s) for u in updates if u.detail == "half"]
    assert pace_of == [(60, 0.5, 150.0, 9.0)]
    assert updates[-1].HasField("result") and updates[-1].result.steps == 120
