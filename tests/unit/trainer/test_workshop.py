from __future__ import annotations

import hashlib
import pathlib
import types
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.trainer import gate, pace, regression, service, trainer, workshop
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import keyring, signature
from shared.cards import manifest as manifests
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
        self.previous: regression.Previous | None = None
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
    ) -> list[gate.Row]:
        assert list(pairs) == [PAIR]
        self.proved.append(triggers)
        self.previous = previous
        return self.rows

    def bystanders(self) -> list[str]:
        return ["Who is the pope?"]

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
        if digest not in self.kept:
            raise errors.NotFoundError(f"no {digest}")
        return self.kept[digest]


class FakeRouter:
    """Sends the wanted question to the draft, and others nowhere unless it is taken in."""

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
        tried = [gate.Tried(own, card, ""), *(gate.Tried(q, elsewhere, "") for q in others)]
        return gate.Rehearsal(tuple(tried), ())


ROUTING = (
    workshop.GateRow("routed", 1, 1, 1.0, True),
    workshop.GateRow("elsewhere", 1, 1, 0.98, True),
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
    fake: FakeTrainer, store: FakeStore, folder: pathlib.Path, router: FakeRouter | None = None
) -> AsyncIterator[workshop.Workshop]:
    lora_trainer: Any = fake
    shop = workshop.Workshop(
        lora_trainer,
        store,
        folder,
        lambda: 0.0,
        fakes.signer(),
        router or FakeRouter(),
        config.Trainer(),
    )
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
    assert proved.passed and proved.rows == (workshop.GateRow("known", 9, 10, 0.85, True), *ROUTING)
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
    assert not proved.passed and [row.passed for row in proved.rows] == [
        True,
        False,
        *(True for _ in ROUTING),
    ]
    assert (proved.card_digest, proved.card_bytes, proved.signature_json) == ("", 0, "")
    assert store.puts == []


async def test_no_signature_is_given_when_the_card_would_take_questions_of_others(
    tmp_path: pathlib.Path,
) -> None:
    fake, store, router = FakeTrainer(GOOD), FakeStore(), FakeRouter()
    router.taken_in = True
    async with opened(fake, store, tmp_path, router) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    assert [row.name for row in proved.rows if not row.passed] == ["elsewhere"]
    assert (proved.signature_json, proved.curable, store.puts) == ("", False, [])
    assert router.asked == [("Who built it?", "Who is the pope?")]


async def test_another_training_is_worth_it_when_only_answers_were_wrong(
    tmp_path: pathlib.Path,
) -> None:
    wrong = gate.Row("held_out", 0, 1, 0.5, wrong=("Its builder?",))
    fake = FakeTrainer(GOOD, wrong, gate.Row("trained", 9, 10, 0.5, wrong=("Its builder?",)))
    async with opened(fake, FakeStore(), tmp_path) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    assert proved.curable and proved.wrong == ("Its builder?",)


async def test_nothing_is_decided_when_the_router_is_away(tmp_path: pathlib.Path) -> None:
    fake, router = FakeTrainer(GOOD), FakeRouter()
    async with opened(fake, FakeStore(), tmp_path, router) as shop:
        trained = await shop.train(order(), report)
        router.away = True
        with pytest.raises(errors.UnavailableError):
            await prove(shop, trained.draft_digest)
        assert fake.proved == []
        router.away = False
        assert (await prove(shop, trained.draft_digest)).passed


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


async def with_version_before(store: FakeStore, card: cards.LoRACard) -> workshop.PublishedCard:
    digest = await store.put("card", formats.LoRAFormat.to_bytes(card))
    return workshop.PublishedCard(digest, datasets.digest(DATASET))


async def test_version_before_is_compared_with_when_there_is_one(tmp_path: pathlib.Path) -> None:
    fake, store = FakeTrainer(GOOD), FakeStore()
    before = await with_version_before(store, fakes.tiny_card(seed=9))
    async with opened(fake, store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        digest = datasets.digest(DATASET)
        await shop.prove("t1", digest, trained.draft_digest, TRIGGERS, report, before)
    assert fake.previous is not None
    assert formats.LoRAFormat.to_bytes(fake.previous.card) == store.kept[before.card_digest]
    assert fake.previous.pairs == (PAIR,)


@pytest.mark.parametrize("why", ["another base", "dataset gone"])
async def test_draft_is_proved_alone_when_the_version_before_cannot_be_compared(
    why: str, tmp_path: pathlib.Path
) -> None:
    fake, store = FakeTrainer(GOOD), FakeStore()
    before = await with_version_before(store, fakes.tiny_card(seed=9))
    if why == "another base":
        fake.base.fingerprint = "0" * 64
    else:
        before = workshop.PublishedCard(before.card_digest, "f" * 64)
    async with opened(fake, store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        digest = datasets.digest(DATASET)
        proved = await shop.prove("t1", digest, trained.draft_digest, TRIGGERS, report, before)
    assert proved.passed and fake.previous is None


async def test_published_card_is_measured_again_when_it_is_asked_for(
    tmp_path: pathlib.Path,
) -> None:
    fake, store = FakeTrainer(BAD), FakeStore()
    card = fakes.tiny_card()
    recorded = manifests.GateRow(name="known", right=9, asked=10, required=0.85, passed=True)
    card = card.with_manifest(card.manifest.model_copy(update={"gate": (recorded,)}))
    published = await with_version_before(store, card)
    async with opened(fake, store, tmp_path) as shop:
        found = await shop.recheck(published, TRIGGERS, report)
    assert found.rows == (workshop.GateRow("known", 8, 10, 0.85, False), *ROUTING)
    assert found.recorded == (workshop.GateRow("known", 9, 10, 0.85, True),)
    assert store.puts == ["card"] and fake.trained == []
