"""What the workshop keeps of a task, and for whom it holds."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import pytest

from services.trainer import trainer
from shared import atomic, errors
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import datasets
from tests.unit.trainer.workshops import (
    GOOD,
    PAIR,
    TRIGGERS,
    FakeStore,
    FakeTrainer,
    opened,
    order,
    prove,
    report,
)


class LeavesACheckpoint(FakeTrainer):
    """Trains as the real one does: its checkpoint stands when it has written the draft."""

    def train_qa(self, *given: Any) -> trainer.Outcome:
        outcome = super().train_qa(*given)
        given[1].with_suffix(".checkpoint").write_bytes(b"state")
        return outcome


async def test_the_checkpoint_stands_when_a_kill_comes_before_the_result_is_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, checkpoint = atomic.write, tmp_path / "t1" / "draft.lora.checkpoint"

    def killed(path: pathlib.Path, data: bytes) -> None:
        if path.name == "trained.json":
            raise KeyboardInterrupt
        write(path, data)

    async with opened(LeavesACheckpoint(), FakeStore(), tmp_path) as shop:
        with monkeypatch.context() as patched:
            patched.setattr(atomic, "write", killed)
            with pytest.raises(KeyboardInterrupt):
                await shop.train(order(), report)
        assert checkpoint.exists()
        await shop.train(order(), report)
        assert not checkpoint.exists()


async def test_a_checkpoint_is_not_gone_on_from_when_it_is_of_another_order(
    tmp_path: pathlib.Path,
) -> None:
    fake = FakeTrainer()
    fake.stopping = True
    checkpoint = tmp_path / "t1" / "draft.lora.checkpoint"
    async with opened(fake, FakeStore(), tmp_path) as shop:
        for seed, stands in ((1, False), (1, True), (2, False)):
            with pytest.raises(errors.UnavailableError):
                await shop.train(order(seed=seed), report)
            assert checkpoint.exists() is stands
            checkpoint.touch()


async def test_a_task_is_trained_again_when_its_order_is_another(tmp_path: pathlib.Path) -> None:
    fake = FakeTrainer()
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order(seed=1), report)
        second = await shop.train(order(seed=2), report)
        assert await shop.train(order(seed=2), report) == second
    assert fake.trained == ["t1", "t1"]
    assert first.draft_digest != second.draft_digest


async def test_a_draft_is_proved_again_when_another_one_was_proved_before(
    tmp_path: pathlib.Path,
) -> None:
    fake = FakeTrainer(GOOD)
    async with opened(fake, FakeStore(), tmp_path) as shop:
        first = await shop.train(order(seed=1), report)
        of_first = await prove(shop, first.draft_digest)
        second = await shop.train(order(seed=2), report)
        assert (await prove(shop, second.draft_digest)).card_digest != of_first.card_digest
        with pytest.raises(errors.SkillmeshError):
            await prove(shop, first.draft_digest)
    assert fake.proved == [TRIGGERS, TRIGGERS]


async def test_nothing_is_measured_again_when_a_kill_comes_after_the_measuring(
    tmp_path: pathlib.Path,
) -> None:
    class Away(FakeStore):
        async def put(self, kind: Any, data: bytes) -> str:
            raise errors.UnavailableError("the store is away")

    async with opened(FakeTrainer(GOOD), Away(), tmp_path) as shop:
        trained = await shop.train(order(), report)
        with pytest.raises(errors.UnavailableError):
            await prove(shop, trained.draft_digest)
    fresh = FakeTrainer(GOOD)
    async with opened(fresh, FakeStore(), tmp_path) as shop:
        assert (await prove(shop, trained.draft_digest)).passed
    assert fresh.proved == []


async def test_the_draft_is_refused_when_it_was_trained_on_another_dataset(
    tmp_path: pathlib.Path,
) -> None:
    class WithLineage(FakeTrainer):
        def train_qa(self, *given: Any) -> trainer.Outcome:
            outcome = super().train_qa(*given)
            card = formats.LoRAFormat.load(given[1])
            lineage = manifests.Lineage(
                task_id="t1",
                teacher="documents",
                dataset_digest=given[2].dataset_digest,
                recipe={},
                seed=1,
                code_version="0",
            )
            told = card.manifest.model_copy(update={"lineage": lineage})
            formats.LoRAFormat.save(card.with_manifest(told), given[1])
            return outcome

    fake, store = WithLineage(GOOD), FakeStore()
    other = datasets.to_bytes([dataclasses.replace(PAIR, answer="Bob")])
    store.kept[datasets.digest(other)] = other
    async with opened(fake, store, tmp_path) as shop:
        trained = await shop.train(order(), report)
        with pytest.raises(errors.InvalidInputError, match="was trained on"):
            await shop.prove("t1", datasets.digest(other), trained.draft_digest, TRIGGERS, report)
        assert (await prove(shop, trained.draft_digest)).passed


async def test_the_draft_is_measured_again_when_nodes_ask_in_another_way(
    tmp_path: pathlib.Path,
) -> None:
    fake, store = FakeTrainer(GOOD), FakeStore()
    for rewriting in (None, 0.5, 0.5):
        async with opened(fake, store, tmp_path, rewriting=rewriting) as shop:
            trained = await shop.train(order(), report)
            await prove(shop, trained.draft_digest)
    assert len(fake.proved) == 2
