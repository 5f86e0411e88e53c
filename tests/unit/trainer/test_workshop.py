from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import pytest

from services.trainer import gate, service, workshop
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import keyring, signature
from shared.cards import manifest as manifests
from shared.flight import datasets
from shared.pb import trainer_pb2, types_pb2
from tests import fakes
from tests.unit.trainer.workshops import (
    BAD,
    DATASET,
    GOOD,
    PAIR,
    ROUTING,
    SAMPLES,
    SAMPLES_DIGEST,
    TRIGGERS,
    FakeCoder,
    FakeRouter,
    FakeStore,
    FakeTrainer,
    opened,
    order,
    prove,
    report,
)


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


async def test_held_out_wordings_are_asked_as_the_router_reads_them_when_nodes_do(
    tmp_path: pathlib.Path,
) -> None:
    fake, router = FakeTrainer(GOOD), FakeRouter()
    async with opened(fake, FakeStore(), tmp_path, router, rewriting=0.5) as shop:
        trained = await shop.train(order(), report)
        proved = await prove(shop, trained.draft_digest)
    assert router.asked == [("Who built it?", "Who is the pope?", *PAIR.held_out)]
    assert fake.instead is not None
    assert {text: fake.instead.get(text) for text in PAIR.held_out} == {
        "Its builder?": "Who built it?",
        "Builder?": None,  # Not similar enough.
    }
    # They are no bystanders.
    assert proved.rows[1:] == ROUTING


async def test_held_out_wordings_are_asked_as_they_stand_when_nodes_rewrite_nothing(
    tmp_path: pathlib.Path,
) -> None:
    fake, router = FakeTrainer(GOOD), FakeRouter()
    async with opened(fake, FakeStore(), tmp_path, router) as shop:
        trained = await shop.train(order(), report)
        await prove(shop, trained.draft_digest)
    assert router.asked == [("Who built it?", "Who is the pope?")]
    assert fake.instead is None and len(fake.proved) == 1


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
    # Whoever reads the table sees that there was a version before.
    assert workshop.GateRow("regression", 0, 0, 0.95, True) in proved.rows


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


async def test_published_card_is_asked_as_users_do_when_it_is_measured_again(
    tmp_path: pathlib.Path,
) -> None:
    alone = gate.Row("held_out_alone", 1, 2, 0.0)
    fake, store = FakeTrainer(gate.Row("held_out", 2, 2, 0.5), alone), FakeStore()
    card = fakes.tiny_card()
    # Published before wordings were asked as users ask.
    recorded = manifests.GateRow(name="held_out", right=1, asked=2, required=0.2, passed=True)
    card = card.with_manifest(card.manifest.model_copy(update={"gate": (recorded,)}))
    published = await with_version_before(store, card)
    async with opened(fake, store, tmp_path, rewriting=0.5) as shop:
        found = await shop.recheck(published, TRIGGERS, report)
    assert fake.instead is not None and fake.instead["Its builder?"] == "Who built it?"
    assert found.recorded == ()


async def test_samples_of_a_code_base_are_trained_and_proved_without_the_router(
    tmp_path: pathlib.Path,
) -> None:
    store, router, coder = FakeStore(), FakeRouter(), FakeCoder()
    store.kept[SAMPLES_DIGEST] = SAMPLES
    taught = dataclasses.replace(order(), dataset_digest=SAMPLES_DIGEST, kind="samples")
    fake = FakeTrainer()
    async with opened(fake, store, tmp_path, router, coder=coder) as shop:
        trained = await shop.train(taught, report)
        proved = await shop.prove("t1", SAMPLES_DIGEST, trained.draft_digest, (), report)
        assert await shop.prove("t1", SAMPLES_DIGEST, trained.draft_digest, (), report) == proved
        published = workshop.PublishedCard(proved.card_digest, SAMPLES_DIGEST)
        rechecked = await shop.recheck(published, (), report)
    assert (coder.trained, coder.proved, fake.trained, router.asked) == (["t1"], 2, [], [])
    assert (
        proved.passed
        and proved.signature_json
        and [row.name for row in proved.rows] == ["perplexity"]
    )
    assert rechecked.rows == proved.rows
    assert coder.cancelled


async def test_a_card_of_a_code_base_is_not_uploaded_when_it_does_not_help(
    tmp_path: pathlib.Path,
) -> None:
    store, coder = FakeStore(), FakeCoder(gate.Row("perplexity", 100, 1000, 0.2, curable=False))
    store.kept[SAMPLES_DIGEST] = SAMPLES
    taught = dataclasses.replace(order(), dataset_digest=SAMPLES_DIGEST, kind="samples")
    async with opened(FakeTrainer(), store, tmp_path, coder=coder) as shop:
        trained = await shop.train(taught, report)
        proved = await shop.prove("t1", SAMPLES_DIGEST, trained.draft_digest, (), report)
    assert (proved.passed, proved.curable, store.puts) == (False, False, [])
