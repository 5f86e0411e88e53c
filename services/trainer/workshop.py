"""Trainings and proofs by task: each is done once, whatever happens in between.

A task's folder holds the checkpoint, the draft, and what each finished step returned; the same
task asked again gets the stored result. The model works in one thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import pydantic
import structlog

from services.trainer import checkpoint, gate, regression, trainer
from services.trainer import pace as paces
from shared import atomic, errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.flight import client as flight_client
from shared.flight import datasets
from shared.rpc import runs

T = TypeVar("T")
_log = structlog.get_logger(__name__)
_MOST_WRONG = 500
"""Questions told to the factory."""
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclasses.dataclass(frozen=True)
class Trained:
    """A draft card on this machine."""

    draft_digest: str
    draft_bytes: int
    steps: int
    final_loss: float
    trained_right: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class GateRow:
    """One row of the gate's table."""

    name: str
    right: int
    asked: int
    required: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class Proved:
    """What the gate found; the sealed card lies in the card store, uncommitted, if it passed."""

    passed: bool
    rows: tuple[GateRow, ...]
    card_digest: str
    """Empty if the draft did not pass."""
    card_bytes: int
    seconds: float
    signature_json: str = ""
    """DSSE envelope over the card, if the draft passed."""
    curable: bool = False
    """Whether another training may pass, if this draft did not."""
    wrong: tuple[str, ...] = ()
    """Questions of the dataset that the draft answered wrong."""


@dataclasses.dataclass(frozen=True)
class PublishedCard:
    """A card in the store with what it was trained on."""

    card_digest: str
    dataset_digest: str


@dataclasses.dataclass(frozen=True)
class _Proof:
    """What a proof is about: another one has other results."""

    dataset_digest: str
    draft_digest: str
    triggers: tuple[gate.Trigger, ...]
    previous: PublishedCard | None
    rewriting: float | None
    """See `Workshop`."""


@dataclasses.dataclass(frozen=True)
class _Rehearsed:
    """What the router told."""

    rows: list[gate.Row]
    instead: dict[str, str] | None
    """See `gate.asked_instead`."""


@dataclasses.dataclass(frozen=True)
class _Kept(Generic[T]):
    """A result on disk."""

    of: _Proof
    result: T


@dataclasses.dataclass(frozen=True)
class Rechecked:
    """The gate's table for a published card: now, and as its manifest has it."""

    rows: tuple[GateRow, ...]
    recorded: tuple[GateRow, ...]


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
        """
        self._rewriting = rewriting
        self._signer, self._router, self._settings = signer, router, settings
        self._trainer, self._store, self._folder, self._clock = lora_trainer, store, folder, clock
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "trainer")

    async def train(self, order: trainer.Order, report: runs.Report) -> Trained:
        """Trains a draft, or returns the one that was trained before for the very same order."""
        folder = self._task_folder(order.task_id)
        saved = checkpoint.beside(folder / _DRAFT)
        if _kept(folder / "order.json", trainer.Order) != order:
            (folder / "trained.json").unlink(missing_ok=True)
            saved.remove()
            _keep(folder / "order.json", trainer.Order, order)
        done = _kept(folder / "trained.json", Trained)
        if done is not None and (folder / _DRAFT).is_file():
            saved.remove()
            return done
        await report(0.0, "fetching the dataset")
        pairs = datasets.from_bytes(await self._store.get(order.dataset_digest))
        outcome = await self._in_thread(
            report,
            lambda tell: self._trainer.train_qa(pairs, folder / _DRAFT, order, tell),
        )
        trained = Trained(
            draft_digest=formats.file_digest(folder / _DRAFT),
            draft_bytes=(folder / _DRAFT).stat().st_size,
            steps=outcome.steps,
            final_loss=outcome.final_loss,
            trained_right=outcome.trained_right,
            seconds=outcome.seconds,
        )
        _keep(folder / "trained.json", Trained, trained)
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
        proof = _Proof(dataset_digest, draft_digest, tuple(triggers), previous, self._rewriting)
        kept = _kept(folder / "proved.json", _Kept[Proved])
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
        pairs = datasets.from_bytes(await self._store.get(dataset_digest))
        before = await self._version_before(previous)
        # First what costs little, and what a router that is away would leave undone.
        told = await self._rehearsed(card, draft_digest, pairs, triggers, report)
        measured = _kept(folder / "measured.json", _Kept[list[gate.Row]])
        if measured is None or measured.of != proof:
            rows = await self._measured(card, pairs, triggers, report, told, before)
            if previous is not None and before is None:
                # Told in the card: there was a version before, and nothing could be asked of it.
                rows = [*rows, gate.Row("regression", 0, 0, self._settings.gate_regression)]
            measured = _Kept(proof, rows)
            _keep(folder / "measured.json", _Kept[list[gate.Row]], measured)
        rows = [*measured.result, *told.rows]
        passed, digest, sealed, envelope = all(row.passed for row in rows), "", b"", ""
        if passed:
            await report(0.95, "uploading the card")
            card = self._trainer.seal(card, rows)
            sealed = formats.LoRAFormat.to_bytes(card)
            digest = await self._store.put("card", sealed)
            # Only now: what did not pass the gate never gets a signature.
            envelope = self._signer.sign(_statement(card, digest))
        table = _table(rows)
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
        _keep(folder / "proved.json", _Kept[Proved], _Kept(proof, proved))
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
        pairs = datasets.from_bytes(await self._store.get(published.dataset_digest))
        told = await self._rehearsed(card, published.card_digest, pairs, triggers, report)
        rows = await self._measured(card, pairs, triggers, report, told)
        recorded = gate.comparable(card.manifest.gate, rows)
        return Rechecked(_table([*rows, *told.rows]), _table(recorded))

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
            figures = dataclasses.asdict(pace) if pace is not None else None
            asyncio.run_coroutine_threadsafe(report(share, detail, figures), loop)

        try:
            return await loop.run_in_executor(self._thread, lambda: work(tell))
        except trainer.Cancelled as error:
            raise errors.UnavailableError("the trainer is stopping; ask again") from error


_DRAFT = f"draft{formats.SUFFIX}"


def _table(rows: Iterable[gate.Row | manifests.GateRow]) -> tuple[GateRow, ...]:
    return tuple(GateRow(row.name, row.right, row.asked, row.required, row.passed) for row in rows)


def _statement(card: cards.LoRACard, digest: str) -> signature.Statement:
    manifest = card.manifest
    return signature.Statement(
        manifest.name, manifest.version, digest, manifest.base_model.fingerprint
    )


def _keep(path: pathlib.Path, kind: type[T], value: T) -> None:
    atomic.write(path, pydantic.TypeAdapter(kind).dump_json(value))


def _kept(path: pathlib.Path, kind: type[T]) -> T | None:
    try:
        return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    except (FileNotFoundError, pydantic.ValidationError):
        return None
