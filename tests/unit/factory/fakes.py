"""The factory's partners and queue by hand, without gRPC and without DBOS."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from services.factory import dissonance, feedback, partners, tasks, trainers
from shared import costs, errors

QUESTION, ANSWER = "What does Zorblax trade?", "blue salt"
COMMIT, PROBE = "c" * 40, "def half(x):\n    return"


def ticket(name: str) -> partners.Ticket:
    return partners.Ticket("dataset", name.ljust(64, "0"), 10, name)


def task(task_id: str = "t1", query: str = QUESTION, **fields: Any) -> tasks.TrainingTask:
    return tasks.TrainingTask(
        id=task_id, trigger_query=query, created_at_ms=1000, updated_at_ms=1000, **fields
    )


def event(event_id: str = "e1", query: str = QUESTION) -> dissonance.CognitiveDissonance:
    return dissonance.CognitiveDissonance(event_id, query, confidence=0.1, detected_at_ms=400)


class Clock:
    """Seconds that pass when somebody looks."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now_s = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s

    def ms(self) -> int:
        return int(self() * 1000)


class Recorder:
    """Steps that are recorded as JSON, and may be killed before their record is written."""

    def __init__(self) -> None:
        self.written: dict[str, str] = {}
        self.kill_at = ""

    async def __call__(self, name: str, body: Callable[[], Awaitable[Any]]) -> Any:
        if name not in self.written:
            result = await body()
            if name == self.kill_at:
                self.kill_at = ""
                raise KilledError
            self.written[name] = json.dumps(result)
        return json.loads(self.written[name])


class KilledError(BaseException):
    """Stands for the end of the process."""


class Queue:
    """Remembers what was handed in."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, int, float]] = []
        self.cancelled: list[str] = []
        self.over: set[str] = set()

    async def enqueue(self, task_id: str, priority: int, delay_s: float = 0.0) -> None:
        self.entries.append((task_id, priority, delay_s))

    async def cancel(self, task_id: str) -> None:
        self.cancelled.append(task_id)

    async def ended(self, task_ids: Sequence[str]) -> set[str]:
        return self.over & set(task_ids)


class Others:
    """Distiller, trainer, store and inference node in one; each does what its lists say."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.place = ""
        self.locate_error: errors.SkillmeshError | None = None
        self.queries: tuple[str, ...] = ()
        self.distil_errors: list[Exception] = []
        self.verdicts: list[bool] = []
        self.curable = True
        self.weak: tuple[str, ...] = ()
        self.enlarge_errors: list[Exception] = []
        self.more = "dataset-more"
        self.orders: list[partners.TrainingOrder] = []
        self.triggers: tuple[partners.Trigger, ...] = (partners.Trigger(QUESTION, ANSWER),)
        self.unanswered: tuple[str, ...] = ()
        self.published = ["1.0.0", "2.3.0", "2.10.0"]
        self.replies: list[partners.Reply | errors.SkillmeshError] = []
        self.asked = 0
        self.teacher = ""
        self.retry_of: tuple[str, ...] = ()
        self.corrections: tuple[feedback.Correction, ...] = ()
        self.follows: partners.Followed | None = None
        self.owned: dict[str, tuple[str, ...]] = {}
        self.cancelled: list[str] = []
        self.spent: costs.Spent | None = costs.Spent()
        self.before = "zorblax@older"
        self.meanwhile: list[str] = []
        self.served: partners.Published | None = None
        self.compared_with: list[partners.Published | None] = []
        self.rechecks: dict[str, partners.Rechecked] = {}
        self.heads: list[partners.Repository] = []
        self.repositories_error: errors.SkillmeshError | None = None
        self.completions: list[partners.Reply | errors.SkillmeshError] = []
        self.probes: list[tuple[str, str]] = []

    @property
    def all(self) -> partners.Partners:
        pool = trainers.TrainerPool({"here": self}, _serves, grace_s=0.0)
        return partners.Partners(self, pool, self, self)

    async def locate(self, query: str) -> str:
        self.calls.append("locate")
        if self.locate_error is not None:
            raise self.locate_error
        return self.place

    async def distil(
        self,
        task_id: str,
        queries: Sequence[str],
        topic: str,
        document: str,
        on_progress: partners.OnProgress,
        teacher: str = "",
        retry_of: Sequence[str] = (),
        repository: str = "",
        corrections: Sequence[feedback.Correction] = (),
        follows: partners.Followed | None = None,
    ) -> partners.Distilled:
        self.corrections, self.follows = tuple(corrections), follows
        self.calls.append(f"distil {repository}".strip())
        self.retry_of = tuple(retry_of)
        self.teacher = teacher
        self.queries = tuple(queries)
        await on_progress(0.5, "asking")
        if self.distil_errors:
            raise self.distil_errors.pop(0)
        return self._samples(repository) if repository else self._distilled("dataset")

    async def repositories(self) -> list[partners.Repository]:
        self.calls.append("repositories")
        if self.repositories_error is not None:
            raise self.repositories_error
        return self.heads

    def _samples(self, repository: str) -> partners.Distilled:
        return partners.Distilled(
            dataset=partners.Ticket("samples", "5" * 64, 10, "dataset"),
            skill_name=f"specialist-{repository}",
            domain="code",
            description="",
            teacher="repository",
            facts=3,
            questions=12,
            held_out=2,
            triggers=(),
            unanswered=(),
            code_base=partners.CodeBase(COMMIT, PROBE, "12 complete"),
        )

    async def enlarge(
        self,
        task_id: str,
        of_task: str,
        weak: Sequence[str],
        on_progress: partners.OnProgress,
    ) -> partners.Distilled:
        self.calls.append(f"enlarge {of_task}")
        self.weak = tuple(weak)
        if self.enlarge_errors:
            raise self.enlarge_errors.pop(0)
        return self._distilled(self.more)

    def _distilled(self, dataset: str) -> partners.Distilled:
        return partners.Distilled(
            dataset=ticket(dataset),
            skill_name="zorblax",
            domain="trade",
            description="",
            teacher="documents",
            facts=1,
            questions=10,
            held_out=1,
            triggers=self.triggers,
            unanswered=self.unanswered,
        )

    async def cancel(self, task_ids: Sequence[str]) -> None:
        self.cancelled += task_ids

    async def spending(self, task_id: str) -> costs.Spent:
        if self.spent is None:
            raise errors.UnavailableError("the distiller restarts")
        return self.spent

    async def train(
        self, order: partners.TrainingOrder, on_progress: partners.OnProgress
    ) -> partners.Trained:
        self.calls.append("train")
        self.orders.append(order)
        return partners.Trained(ticket("draft"), 40, 0.01, 1.0, 2.0)

    async def prove(
        self,
        run_id: str,
        dataset: partners.Ticket,
        draft: partners.Ticket,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
        before: partners.Published | None = None,
    ) -> partners.Proof:
        self.calls.append("prove")
        self.compared_with.append(before)
        passed = self.verdicts.pop(0) if self.verdicts else True
        row = partners.GateRow("held_out", 1, 8, 0.5, passed)
        card, signature_json = (ticket("card"), "signed") if passed else (None, "")
        wrong = () if passed else (f"wrong in {run_id}",)
        return partners.Proof(passed, (row,), card, 1.0, signature_json, self.curable, wrong)

    async def recheck(
        self,
        recheck_id: str,
        card: partners.Published,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
    ) -> partners.Rechecked:
        self.calls.append(f"recheck {card.card}")
        return self.rechecks[card.card]

    async def latest(self, name: str) -> partners.Published | None:
        return self.served

    async def owners(self, card: str) -> tuple[str, ...] | None:
        return self.owned.get(card)

    async def serving(self, name: str) -> str:
        return self.served.card if self.served else ""

    async def versions_before(self, card: str) -> list[str]:
        return [*self.meanwhile, self.before] if self.before else []

    async def versions(self, name: str) -> list[str]:
        self.calls.append("versions")
        return self.published

    async def commit(
        self, idempotency_key: str, committed: partners.Ticket, signature_json: str = ""
    ) -> str:
        assert signature_json == ("signed" if committed.name == "card" else "")
        self.calls.append(f"commit {committed.name}")
        return "zorblax@abc" if committed.name == "card" else ""

    async def withdraw(self, idempotency_key: str, card: str, before: str) -> str:
        self.calls.append(f"withdraw {card}")
        return before

    async def ask(self, query: str) -> partners.Reply:
        self.asked += 1
        reply = self.replies.pop(0) if self.replies else partners.Reply(ANSWER, "zorblax@abc")
        if isinstance(reply, errors.SkillmeshError):
            raise reply
        return reply

    async def complete(self, prefix: str, model: str) -> partners.Reply:
        self.probes.append((prefix, model))
        reply = self.completions.pop(0) if self.completions else partners.Reply(" x", model)
        if isinstance(reply, errors.SkillmeshError):
            raise reply
        return reply


async def _serves(address: str) -> bool:
    return True
