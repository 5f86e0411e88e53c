"""`SkillDistiller`: the durable workflow from a gap to a card that answers.

gather (the queue's delay) -> distil -> train -> prove -> publish -> confirm. A draft that fails the
gate is tried again with more wordings and another seed, then with more rank, where that can help;
of a code base there are no more wordings.
Every step's result is recorded, so that a factory killed at any moment goes on at the step it was
in and repeats none that was finished. The order of the steps and their names are the workflow's
history: whoever changes them raises `durable.WORKFLOW_VERSION`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import pydantic
import structlog

from services.factory import observing, partners, stages
from shared import errors
from shared.telemetry import tracing

T = TypeVar("T")
Json = dict[str, Any]

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class _Try:
    """One training: what it does otherwise than the one before."""

    seed: int
    told: str
    """For people."""
    rank_factor: int = 1
    enlarges: bool = False
    """Whether the distiller is asked for more wordings first."""


_TRIES = (
    _Try(1, "first try"),
    _Try(2, "with more wordings and another seed", enlarges=True),
    _Try(3, "with twice the rank", rank_factor=2),
)

_CODE_TRIES = (
    _TRIES[0],
    # Of a code base there are no other wordings.
    _Try(2, "with another seed"),
    _TRIES[2],
)

_STAGE = re.compile(r"( \d+)?( again \d+)?$")
"""What of a step's name tells the try."""
_MOST_LOST = 5
"""Trainers that may be lost with a finished draft, one after the other."""
_PROOF: pydantic.TypeAdapter[partners.Proof | None] = pydantic.TypeAdapter(partners.Proof | None)


class RunStep(Protocol):
    """Runs a step once and for all: where its result is recorded already, returns that."""

    async def __call__(self, name: str, body: Callable[[], Awaitable[Json]]) -> Json:
        """Runs the body unless its result is recorded."""


class SkillDistiller:
    """Ties detection, distillation, training and deployment into one loop."""

    def __init__(
        self,
        work: stages.Stages,
        run_step: RunStep,
        observer: observing.Observer | None = None,
    ) -> None:
        """Takes the stages, what records their results, and who is told of them."""
        self._stages = work
        self._run_step = run_step
        self._observer = observer or observing.Nobody()

    async def learn(self, task_id: str) -> None:
        """Works on a task until it has ended, well or FAILED: in the trace of its question."""
        traceparent = await self._stages.traceparent(task_id)
        with tracing.resumed(traceparent), tracing.span("learn", task=task_id):
            await self._until_ended(task_id)

    async def _until_ended(self, task_id: str) -> None:
        try:
            await self._learn(task_id)
        except _StoppedError as stopped:
            reason = str(stopped)
            await self._step("fail", type(None), lambda: self._stages.fail(task_id, reason))
        except Exception as error:
            # Nobody waits for this call: without this the task would stay open for ever.
            _log.exception("workflow broken", task=task_id)
            await self._stages.fail(task_id, f"the workflow broke: {_described(error)}")
            raise

    async def _learn(self, task_id: str) -> None:
        work = self._stages
        distilled = await self._step("distil", partners.Distilled, lambda: work.distil(task_id))
        await self._step("keep dataset", type(None), lambda: work.keep_dataset(task_id, distilled))
        following = await self._step(
            "choose version",
            partners.NextVersion,
            lambda: work.choose_version(distilled.skill_name),
        )
        ticket, signature_json, distilled = await self._prove(task_id, distilled, following)
        card = await self._step(
            "publish", str, lambda: work.publish(task_id, ticket, signature_json)
        )
        await self._step(
            "confirm",
            type(None),
            lambda: work.confirm(task_id, card, distilled, following.serving),
        )
        await self._step("complete", type(None), lambda: work.complete(task_id, card, distilled))

    async def _prove(
        self, task_id: str, distilled: partners.Distilled, following: partners.NextVersion
    ) -> tuple[partners.Ticket, str, partners.Distilled]:
        """Trains until a draft passes the gate, three times at most.

        Returns:
            Its ticket, its signature, and what it was trained on.
        """
        figures, wrong = list[str](), tuple[str, ...]()
        for attempt in _TRIES if distilled.code_base is None else _CODE_TRIES:
            if attempt.enlarges:
                larger = functools.partial(self._stages.enlarge, task_id, distilled, wrong)
                distilled = await self._step("enlarge dataset", partners.Distilled, larger)
            proof = await self._train_and_measure(task_id, distilled, following, attempt)
            if proof.passed and proof.card is not None:
                return proof.card, proof.signature_json, distilled
            wrong = proof.wrong
            figures.append(f"{attempt.told}: {_figures(proof)}")
            if not proof.curable:
                figures.append("no further try would change that")
                break
        raise _StoppedError(
            f"no draft of {distilled.skill_name} passed the gate; " + "; ".join(figures)
        )

    async def _train_and_measure(
        self,
        task_id: str,
        distilled: partners.Distilled,
        following: partners.NextVersion,
        attempt: _Try,
    ) -> partners.Proof:
        # The trainer returns what it stored under a known id: another try needs another id.
        run_id = task_id if attempt is _TRIES[0] else f"{task_id}-{attempt.seed}"
        order = partners.TrainingOrder(
            run_id=run_id,
            dataset=distilled.dataset,
            skill_name=distilled.skill_name,
            version=following.version,
            domain=distilled.domain,
            description=distilled.description,
            teacher=distilled.teacher,
            seed=attempt.seed,
            rank_factor=attempt.rank_factor,
        )
        for lost in range(_MOST_LOST):
            again = f" again {lost}" if lost else ""
            trained = await self._step(
                f"train {attempt.seed}{again}",
                partners.Trained,
                functools.partial(self._stages.train, task_id, order),
            )
            proof = await self._step(
                f"prove {attempt.seed}{again}",
                _PROOF,
                functools.partial(
                    self._stages.prove, task_id, run_id, distilled, trained, following.before
                ),
            )
            if proof is not None:
                self._observer.gate(proof)
                return proof
            # The draft lay on the disk of a trainer that is gone.
        raise _StoppedError(f"{_MOST_LOST} trainers were lost, each with the draft that it made")

    async def _step(
        self, name: str, kind: type[T] | pydantic.TypeAdapter[T], body: Callable[[], Awaitable[T]]
    ) -> T:
        """Runs one recorded step.

        A failure is recorded like a result, as data: an exception would come back from the record
        as another one than was raised.
        """
        form: pydantic.TypeAdapter[T]
        form = kind if isinstance(kind, pydantic.TypeAdapter) else pydantic.TypeAdapter(kind)

        async def recorded() -> Json:
            try:
                value = await body()
            except errors.SkillmeshError as error:
                return {"failed": str(error)}
            except Exception as error:
                # A defect of ours or a broken partner; the task must end, with the reason.
                _log.exception("step broken", step=name)
                return {"failed": f"{name} broke: {_described(error)}"}
            return {"value": form.dump_python(value, mode="json")}

        async def observed() -> Json:
            began, stage = time.perf_counter(), _STAGE.sub("", name)
            with tracing.span(stage, step=name) as span:
                outcome = await recorded()
                failed = "failed" in outcome
                span.set_attribute("skillmesh.failed", failed)
            self._observer.stage(stage, time.perf_counter() - began, failed)
            return outcome

        outcome = await self._run_step(name, observed)
        if "failed" in outcome:
            raise _StoppedError(outcome["failed"])
        return form.validate_python(outcome["value"])


class _StoppedError(Exception):
    """The workflow cannot go on; the message is for people."""


def _figures(proof: partners.Proof) -> str:
    """The gate's table, what failed first."""
    failed = [str(row) for row in proof.rows if not row.passed]
    passed = [str(row) for row in proof.rows if row.passed and row.asked]
    return ", ".join(failed) + (f" (reached: {', '.join(passed)})" if passed else "")


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
