"""Trainings and proofs by task: each is done once, whatever happens in between.

A task's folder holds the checkpoint, the draft, and what each finished step returned; the same
task asked again gets the stored result. The model works in one thread. Facts are taught, or the
samples of a code base: cards of those are trained and proved in another way (`specialist`), and the
router is not asked about them, since no question comes to them by its meaning.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from services.trainer import checkpoint, course, gate, metrics, regression, results, trainer
from services.trainer import pace as paces
from services.trainer.specialist import manager
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.flight import client as flight_client
from shared.flight import datasets, samples
from shared.rpc import runs

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_MOST_WRONG = 500
"""Questions told to the factory."""
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


Trained = results.Trained
GateRow = results.GateRow
Proved = results.Proved
PublishedCard = results.PublishedCard
Rechecked = results.Rechecked


@dataclasses.dataclass(frozen=True)
class _Rehearsed:
    """What the router told."""

    rows: list[gate.Row]
    instead: dict[str, str] | None
    """See `gate.asked_instead`."""


class Store(Protocol):
    """The card store's data plane, see `shared.flight.store.StoreConnection`."""

    async def put(self, kind: flight_client.Kind, data: bytes) -> str:
        """Uploads bytes and returns their digest."""
        ...

    async def get(self, digest: str) -> bytes:
        """Fetches bytes, checked against their digest."""
        ...


class Rehearses(Protocol):
    """The router, see `router_client.RouterClient`."""

    async def rehearse(
        self, manifest: manifests.Manifest, digest: str, questions: Sequence[str]
    ) -> gate.Rehearsal:
        """What it would do with a draft among its cards."""
        ...


class Observer(Protocol):
    """Is told how the work goes, see `metrics.Work`."""

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Around one job, waiting included."""
        ...

    def stepped(self, pace: paces.Pace | None) -> None:
        """Where the training that runs stands; None: what runs is none."""
        ...

    def trained(self, kind: str, seconds: float) -> None:
        """A training ran to its end."""
        ...


class Workshop:
    """All work of one trainer process."""

    def __init__(
        self,
        lora_trainer: trainer.LoRATrainer,
        store: Store,
        folder: pathlib.Path,
        clock: Callable[[], float],
        signer: signature.Signer,
        router: Rehearses,
        settings: config.Trainer,
        rewriting: float | None = None,
        specialist: manager.TrainingManager | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Takes who trains, where datasets and cards travel, and where results are kept.

        Args:
            lora_trainer: uses the model; called in one thread.
            store: data plane of the card store.
            folder: one sub-folder a task.
            clock: seconds, monotonic.
            signer: vouches for the cards that pass.
            router: says where questions would go.
            settings: the gate's shares.
            rewriting: the similarity from which on nodes ask a card of this base model what it was
                trained on in place of a question; None: never.
            specialist: trains and proves the cards of code bases; without it they are refused.
            observer: is told how the work goes.
        """
        self._observer = observer or metrics.Work()
        self._specialist = specialist
        self._rewriting = rewriting
        self._signer, self._router, self._settings = signer, router, settings
        self._trainer, self._store, self._folder, self._clock = lora_trainer, store, folder, clock
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "trainer")

    async def train(self, order: trainer.Order, report: runs.Report) -> Trained:
        """Trains a draft, or returns the one that was trained before for the very same order."""
        folder = self._task_folder(order.task_id)
        saved = checkpoint.beside(folder / _DRAFT)
        if results.kept(folder / "order.json", trainer.Order) != order:
            (folder / "trained.json").unlink(missing_ok=True)
            saved.remove()
            results.keep(folder / "order.json", trainer.Order, order)
        done = results.kept(folder / "trained.json", Trained)
        if done is not None and (folder / _DRAFT).is_file():
            saved.remove()
            return done
        await report(0.0, "fetching the dataset")
        data = await self._store.get(order.dataset_digest)
        outcome = await self._in_thread(report, self._training(order, data, folder / _DRAFT))
        trained = Trained(
            draft_digest=formats.file_digest(folder / _DRAFT),
            draft_bytes=(folder / _DRAFT).stat().st_size,
            steps=outcome.steps,
            final_loss=outcome.final_loss,
            trained_right=outcome.trained_right,
            seconds=outcome.seconds,
        )
        results.keep(folder / "trained.json", Trained, trained)
        self._observer.trained(order.kind, outcome.seconds)
        # Only now: a kill before it costs what comes after the last step, not the training.
        saved.remove()
        return trained

    async def prove(
        self,
        task_id: str,
        dataset_digest: str,
        draft_digest: str,
        triggers: Sequence[gate.Trigger],
        report: runs.Report,
        previous: PublishedCard | None = None,
    ) -> Proved:
        """Measures a draft and uploads it if it passed, or returns what was found before.

        Args:
            task_id: of the training.
            dataset_digest: what the draft was trained on.
            draft_digest: of the draft.
            triggers: the questions that asked for it.
            report: told now and then.
            previous: the version that it is to follow, which must not be better at anything.

        Raises:
            errors.InvalidInputError: the draft was trained on another dataset.
        """
        folder = self._task_folder(task_id)
        proof = results.Proof(
            dataset_digest, draft_digest, tuple(triggers), previous, self._rewriting
        )
        kept = results.kept(folder / "proved.json", results.Kept[Proved])
        if kept is not None and kept.of == proof:
            return kept.result
        started = self._clock()
        card = formats.LoRAFormat.load(folder / _DRAFT, draft_digest)
        lineage = card.manifest.lineage
        if lineage is not None and lineage.dataset_digest != dataset_digest:
            raise errors.InvalidInputError(
                f"task {task_id}: the draft was trained on dataset {lineage.dataset_digest}, "
                f"not on {dataset_digest}; prove it on the dataset of its training"
            )
        data = await self._store.get(dataset_digest)
        if card.manifest.route == manifests.SPECIALIST_LOCAL:
            rows = await self._of_code(card, data, report)
        else:
            rows = await self._of_facts(folder, proof, card, data, report)
        passed, digest, sealed, envelope = all(row.passed for row in rows), "", b"", ""
        if passed:
            await report(0.95, "uploading the card")
            card = self._trainer.seal(card, rows)
            sealed = formats.LoRAFormat.to_bytes(card)
            digest = await self._store.put("card", sealed)
            # Only now: what did not pass the gate never gets a signature.
            envelope = self._signer.sign(_statement(card, digest))
        table = results.table(rows)
        seconds = self._clock() - started
        wrong = dict.fromkeys(question for row in rows for question in row.wrong)
        failed = [row for row in rows if not row.passed]
        proved = Proved(
            passed=passed,
            rows=table,
            card_digest=digest,
            card_bytes=len(sealed),
            seconds=seconds,
            signature_json=envelope,
            curable=bool(failed) and all(row.curable for row in failed),
            wrong=tuple(wrong)[:_MOST_WRONG],
        )
        results.keep(folder / "proved.json", results.Kept[Proved], results.Kept(proof, proved))
        return proved

    async def recheck(
        self,
        published: PublishedCard,
        triggers: Sequence[gate.Trigger],
        report: runs.Report,
    ) -> Rechecked:
        """Measures a published card again, as it lies in the store.

        Raises:
            errors.NotFoundError: the store does not have the card or its dataset any more.
        """
        card = formats.LoRAFormat.from_bytes(await self._store.get(published.card_digest))
        data = await self._store.get(published.dataset_digest)
        if card.manifest.route == manifests.SPECIALIST_LOCAL:
            rows = await self._of_code(card, data, report)
            return Rechecked(results.table(rows), results.table(card.manifest.gate))
        pairs = datasets.from_bytes(data)
        told = await self._rehearsed(card, published.card_digest, pairs, triggers, report)
        rows = await self._measured(card, pairs, triggers, report, told)
        recorded = gate.comparable(card.manifest.gate, rows)
        return Rechecked(results.table([*rows, *told.rows]), results.table(recorded))

    def _training(
        self, order: trainer.Order, data: bytes, path: pathlib.Path
    ) -> Callable[[trainer.OnProgress], trainer.Outcome]:
        if order.kind == "samples":
            taught = samples.from_bytes(data)
            coder = self._coder()
            return lambda tell: coder.train(taught, path, order, tell)
        pairs = datasets.from_bytes(data)
        return lambda tell: self._trainer.train_qa(pairs, path, order, tell)

    def _coder(self) -> manager.TrainingManager:
        if self._specialist is None:
            raise errors.ConfigError("this trainer trains no cards of code bases")
        return self._specialist

    async def _of_code(
        self, card: cards.LoRACard, data: bytes, report: runs.Report
    ) -> list[gate.Row]:
        asked, coder = samples.from_bytes(data), self._coder()
        return await self._in_thread(report, lambda tell: coder.prove(card, asked, tell))

    async def _of_facts(
        self,
        folder: pathlib.Path,
        proof: results.Proof,
        card: cards.LoRACard,
        data: bytes,
        report: runs.Report,
    ) -> list[gate.Row]:
        pairs = datasets.from_bytes(data)
        before = await self._version_before(proof.previous)
        # First what costs little, and what a router that is away would leave undone.
        told = await self._rehearsed(card, proof.draft_digest, pairs, proof.triggers, report)
        measured = results.kept(folder / "measured.json", results.Kept[list[gate.Row]])
        if measured is None or measured.of != proof:
            rows = await self._measured(card, pairs, proof.triggers, report, told, before)
            if proof.previous is not None and before is None:
                # Told in the card: there was a version before, and nothing could be asked of it.
                rows = [*rows, gate.Row("regression", 0, 0, self._settings.gate_regression)]
            measured = results.Kept(proof, rows)
            results.keep(folder / "measured.json", results.Kept[list[gate.Row]], measured)
        return [*measured.result, *told.rows]

    async def _version_before(self, previous: PublishedCard | None) -> regression.Previous | None:
        if previous is None:
            return None
        try:
            card = formats.LoRAFormat.from_bytes(await self._store.get(previous.card_digest))
            pairs = datasets.from_bytes(await self._store.get(previous.dataset_digest))
        except errors.NotFoundError as error:
            # Datasets are kept for as long as the store's retention says.
            _log.warning("no regression check", card=previous.card_digest, reason=str(error))
            return None
        if card.manifest.base_model.fingerprint != self._trainer.base.fingerprint:
            _log.info("no regression check: another base model", card=previous.card_digest)
            return None
        return regression.Previous(card, tuple(pairs))

    async def _measured(
        self,
        card: cards.LoRACard,
        pairs: Sequence[datasets.QAPair],
        triggers: Sequence[gate.Trigger],
        report: runs.Report,
        told: _Rehearsed,
        before: regression.Previous | None = None,
    ) -> list[gate.Row]:
        def work(tell: trainer.OnProgress) -> list[gate.Row]:
            return self._trainer.prove(card, pairs, triggers, tell, before, told.instead)

        return await self._in_thread(report, work)

    async def _rehearsed(
        self,
        card: cards.LoRACard,
        draft_digest: str,
        pairs: Sequence[datasets.QAPair],
        triggers: Sequence[gate.Trigger],
        report: runs.Report,
    ) -> _Rehearsed:
        await report(0.0, "asking the router")
        wanted = gate.wanted_questions(pairs, triggers)
        others = await self._in_thread(report, lambda tell: self._trainer.bystanders())
        unseen = () if self._rewriting is None else gate.unseen_questions(pairs)
        asked = [*wanted, *others, *unseen]
        rehearsal = await self._router.rehearse(card.manifest, draft_digest, asked)
        identity = manifests.card_identity(card.manifest.name, draft_digest)
        return _Rehearsed(
            gate.routing(rehearsal, wanted, others, identity, self._settings),
            gate.asked_instead(rehearsal.questions, self._rewriting),
        )

    async def close(self) -> None:
        """Stops the running training at its next step; its checkpoint stands."""
        self._trainer.cancel()
        if self._specialist is not None:
            self._specialist.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    def _task_folder(self, task_id: str) -> pathlib.Path:
        if not _TASK_ID.fullmatch(task_id):
            raise errors.InvalidInputError(
                f"task_id {task_id!r}: use letters, digits, dot, dash and underscore"
            )
        return self._folder / task_id

    async def _in_thread(self, report: runs.Report, work: Callable[[trainer.OnProgress], T]) -> T:
        loop = asyncio.get_running_loop()

        def tell(share: float, detail: str, pace: paces.Pace | None = None) -> None:
            self._observer.stepped(pace)
            figures = dataclasses.asdict(pace) if pace is not None else None
            asyncio.run_coroutine_threadsafe(report(share, detail, figures), loop)

        try:
            with self._observer.at_work():
                return await loop.run_in_executor(self._thread, lambda: work(tell))
        except course.Cancelled as error:
            raise errors.UnavailableError("the trainer is stopping; ask again") from error


_DRAFT = f"draft{formats.SUFFIX}"


def _statement(card: cards.LoRACard, digest: str) -> signature.Statement:
    manifest = card.manifest
    return signature.Statement(
        manifest.name, manifest.version, digest, manifest.base_model.fingerprint
    )
