"""A learning task: its questions, its states and the moves between them.

Pure values: every change returns a new task. Knows nothing about databases, services or DBOS; the
ledger keeps tasks, the workflow moves them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable

from services.factory import dissonance, feedback, statuses
from shared import costs, errors, questions

LOWEST_PRIORITY, HIGHEST_PRIORITY = 1, 5
DEFAULT_PRIORITY = 3
MOST_QUERIES = 64
"""Questions of one task; those that come beyond only raise its demand."""
_RAISED_AT = (10, 100)
"""From so many askings on a task's priority is one, and two, above the usual."""
TaskStatus = statuses.TaskStatus


@dataclasses.dataclass(frozen=True)
class StageTime:
    """How long one stage took."""

    stage: str
    """detect, distil, train, prove, publish, confirm."""
    seconds: float


@dataclasses.dataclass(frozen=True)
class TrainingTask:
    """One gap to be closed: what to learn, and how far that is."""

    id: str
    trigger_query: str
    """The question that revealed the gap; for what is taught, its words or name."""
    created_at_ms: int
    updated_at_ms: int
    other_queries: tuple[str, ...] = ()
    """Further questions about the same gap."""
    topic: str = ""
    """What to learn in words, where a person asked for it."""
    document: str = ""
    """The document to learn, where a person asked for it."""
    repository: str = ""
    """The code base to learn, by its name among the distiller's repositories."""
    commit_id: str = ""
    """That it was read at; empty until then."""
    topic_key: str = ""
    """What the gap is about, as the distiller located it; empty where it could not."""
    domain: str = ""
    priority: int = DEFAULT_PRIORITY
    """1 (low) to 5 (critical)."""
    status: TaskStatus = TaskStatus.PENDING
    card: str = ""
    """name@digest once published."""
    error: str = ""
    """Why it FAILED."""
    progress: float = 0.0
    """0 to 1 within the current status."""
    detail: str = ""
    """What the current status is doing, for people."""
    stage_times: tuple[StageTime, ...] = ()
    stage: str = ""
    """The stage whose time runs."""
    stage_since_ms: int = 0
    """Since when it runs, restarts of the factory included."""
    retry_of: str = ""
    """The task that this one tries again."""
    tenant: str = ""
    """Who asked first, where callers have tenants; its budget pays."""
    demand: int = 1
    """How often it was asked for."""
    admitted_at_ms: int = 0
    """When the budget let it start; 0 while it waits."""
    night: str = ""
    """The nightly batch that took it up; empty for none."""
    place: int = 0
    """Its place in the order of that batch, from 1."""
    joined_into: str = ""
    """The task that learns its questions, and ends as it does."""
    teacher: str = ""
    """Who is asked first; empty for the first one configured."""
    trainer: str = ""
    """The address of the trainer that works on it; empty for none."""
    spent: costs.Spent = costs.NOTHING
    """What its teachers cost."""
    corrections: tuple[feedback.Correction, ...] = ()
    """Answers that people gave to some of its questions; of one question the newest."""
    traceparent: str = ""
    """Of the trace of what asked for it first; empty where it has none."""

    def __post_init__(self) -> None:
        """Refuses a task that could never be worked on."""
        dissonance.check_text("trigger_query", self.trigger_query)
        if not LOWEST_PRIORITY <= self.priority <= HIGHEST_PRIORITY:
            raise errors.InvalidInputError(
                f"priority {self.priority} is not between {LOWEST_PRIORITY} (low) and "
                f"{HIGHEST_PRIORITY} (critical)"
            )
        if sum(map(bool, (self.topic, self.document, self.repository))) > 1:
            raise errors.InvalidInputError("give a topic, a document or a repository, one of them")

    @property
    def queries(self) -> tuple[str, ...]:
        """The questions to be answered; what is taught has none of its own."""
        own = () if self.taught else (self.trigger_query,)
        return (*own, *self.other_queries)

    @property
    def taught(self) -> bool:
        """Whether a person, or the night, named what to learn, rather than questions."""
        return bool(self.topic or self.document or self.repository)

    @property
    def corrected_skill(self) -> str:
        """The name of the card whose answers it corrects; empty for none."""
        return next((one.skill for one in self.corrections if one.skill), "")

    def gap_keys(self) -> tuple[str, ...]:
        """What an open task of the same gap would be found by, the surest first."""
        keys = [f"correction:{questions.fold(one.question)}" for one in self.corrections]
        keys += [f"question:{questions.fold(query)}" for query in self.queries]
        if self.topic:
            keys.append(f"topic:{questions.fold(self.topic)}")
        if self.document:
            keys.append(f"document:{self.document}")
        if self.repository:
            keys.append(f"repository:{self.repository}")
        if self.corrected_skill:
            keys.append(f"skill:{self.corrected_skill}")
        if self.topic_key:
            keys.append(f"place:{self.topic_key}")
        return tuple(dict.fromkeys(keys))

    def joined(self, queries: Iterable[str], now_ms: int) -> TrainingTask:
        """The task with further questions; those it already has in other spelling are left out."""
        known = {questions.fold(query) for query in self.queries}
        room = max(0, MOST_QUERIES - len(self.queries))
        fresh = [query for query in queries if questions.fold(query) not in known][:room]
        if not fresh:
            return self
        return dataclasses.replace(
            self, other_queries=(*self.other_queries, *fresh), updated_at_ms=now_ms
        )

    def takes(self, fresh: TrainingTask) -> bool:
        """Whether it can learn the corrections of another task along with its own.

        Those of one card belong into that card's next version, and into no other.
        """
        return (
            self.status is TaskStatus.PENDING
            and not self.taught
            and self.corrected_skill == fresh.corrected_skill
            and len(self.queries) + len(fresh.queries) <= MOST_QUERIES
        )

    def corrected(self, told: Iterable[feedback.Correction], now_ms: int) -> TrainingTask:
        """The task with further corrections of its questions; the newest of each counts."""
        by_question = {questions.fold(one.question): one for one in self.corrections}
        newest = {questions.fold(one.question): one for one in told}
        if not newest:
            return self
        return dataclasses.replace(
            self, corrections=tuple({**by_question, **newest}.values()), updated_at_ms=now_ms
        )

    def following_on(self, task_id: str) -> TrainingTask:
        """The task whose corrections came too late for another one, which learns the question."""
        return dataclasses.replace(
            self,
            corrections=tuple(
                dataclasses.replace(one, behind="" if one.card else task_id)
                for one in self.corrections
            ),
        )

    def demanded(self) -> TrainingTask:
        """The task asked for once more; its priority rises with the demand."""
        demand = self.demand + 1
        raised = DEFAULT_PRIORITY + sum(demand >= at for at in _RAISED_AT)
        return dataclasses.replace(self, demand=demand, priority=max(self.priority, raised))

    def leading(
        self, others: Iterable[TrainingTask], night: str, place: int, teacher: str, now_ms: int
    ) -> TrainingTask:
        """The task that learns others' questions with its own in a nightly batch."""
        task = self
        for other in others:
            task = dataclasses.replace(
                task.joined(other.queries, now_ms).corrected(other.corrections, now_ms),
                demand=task.demand + other.demand,
                priority=max(task.priority, other.priority),
            )
        return dataclasses.replace(
            task, night=night, place=place, teacher=teacher, detail="", updated_at_ms=now_ms
        )

    def following(self, leader: TrainingTask, now_ms: int) -> TrainingTask:
        """The task whose questions another one learns."""
        return dataclasses.replace(
            self,
            night=leader.night,
            joined_into=leader.id,
            detail=f"is learned together with task {leader.id}",
            updated_at_ms=now_ms,
        )

    def ended_with(
        self, leader: TrainingTask, now_ms: int, answered: Collection[str] | None = None
    ) -> TrainingTask:
        """The task that ends as the one that learned its questions.

        Where that one was cancelled it waits as before; where no answer was found to any of its
        questions it FAILED.

        Args:
            leader: the other task.
            now_ms: Unix time.
            answered: the questions that were learned; None where that is not known.
        """
        if leader.status is TaskStatus.CANCELLED:
            return dataclasses.replace(
                self, night="", joined_into="", detail="", updated_at_ms=now_ms
            )
        together = f"learned together with task {leader.id}"
        if leader.status is TaskStatus.COMPLETED and answered is not None and self.queries:
            own = map(questions.fold, self.queries)
            if set(map(questions.fold, answered)).isdisjoint(own):
                return self.failed(f"{together}, but no answer was found", now_ms)
        return dataclasses.replace(
            self,
            status=leader.status,
            card=leader.card,
            domain=leader.domain,
            error=leader.error and f"{together}: {leader.error}",
            detail=together,
            progress=leader.progress,
            updated_at_ms=now_ms,
        )

    def admitted(self, now_ms: int) -> TrainingTask:
        """The task that the budget lets start."""
        return dataclasses.replace(self, admitted_at_ms=now_ms, detail="", updated_at_ms=now_ms)

    def waiting(self, reason: str, now_ms: int) -> TrainingTask:
        """The task that waits for a reason that people see."""
        if self.detail == reason:
            return self
        return dataclasses.replace(self, detail=reason, updated_at_ms=now_ms)

    def moved(self, status: TaskStatus, now_ms: int, detail: str = "") -> TrainingTask:
        """The task in another state.

        Moving to the state it is already in changes nothing: a step that is repeated after a
        crash says again where it stands.

        Raises:
            errors.PreconditionError: there is no way from the task's state to that one.
        """
        if status is self.status and not status.final:
            return self
        if not self.status.may_become(status):
            raise errors.PreconditionError(
                f"task {self.id} is {self.status.value} and cannot become {status.value}"
            )
        return dataclasses.replace(
            self, status=status, progress=0.0, detail=detail, updated_at_ms=now_ms
        )

    def timing(self, stage: str, now_ms: int) -> TrainingTask:
        """The task with that stage's time running; it goes on where it runs already."""
        if self.stage == stage:
            return self
        return dataclasses.replace(self, stage=stage, stage_since_ms=now_ms, updated_at_ms=now_ms)

    def timed(self, stage: str, now_ms: int) -> TrainingTask:
        """The task with the running stage's time added to what that stage took before."""
        if self.stage != stage:
            return self
        before = sum(time.seconds for time in self.stage_times if time.stage == stage)
        spent = StageTime(stage, before + max(0, now_ms - self.stage_since_ms) / 1000)
        others = tuple(time for time in self.stage_times if time.stage != stage)
        return dataclasses.replace(
            self, stage="", stage_times=(*others, spent), updated_at_ms=now_ms
        )

    def progressed(self, progress: float, detail: str, now_ms: int) -> TrainingTask:
        """The task further on within its state; an ended one stays as it is."""
        if self.status.final:
            return self
        return dataclasses.replace(
            self, progress=min(1.0, max(0.0, progress)), detail=detail, updated_at_ms=now_ms
        )

    def sent_to(self, trainer: str, now_ms: int) -> TrainingTask:
        """The task with the trainer that works on it now; an ended one stays as it is."""
        if self.status.final or self.trainer == trainer:
            return self
        return dataclasses.replace(self, trainer=trainer, updated_at_ms=now_ms)

    def placed(self, domain: str, now_ms: int) -> TrainingTask:
        """The task with the domain that the distiller found; an ended one stays as it is."""
        if self.status.final:
            return self
        return dataclasses.replace(self, domain=domain, updated_at_ms=now_ms)

    def read_at(self, commit_id: str, now_ms: int) -> TrainingTask:
        """The task with the commit of its code base; an ended one stays as it is."""
        if self.status.final or self.commit_id == commit_id:
            return self
        return dataclasses.replace(self, commit_id=commit_id, updated_at_ms=now_ms)

    def paid(self, spent: costs.Spent, now_ms: int) -> TrainingTask:
        """The task with what its teachers cost; an ended one too: it was paid all the same."""
        if spent == self.spent:
            return self
        return dataclasses.replace(self, spent=spent, updated_at_ms=now_ms)

    def published(self, card: str, now_ms: int) -> TrainingTask:
        """The task with its card, `name@digest`; an ended one stays as it is."""
        if self.status.final:
            return self
        return dataclasses.replace(self, card=card, updated_at_ms=now_ms)

    def failed(self, reason: str, now_ms: int) -> TrainingTask:
        """The task FAILED for that reason; an ended one stays as it is."""
        if self.status.final:
            return self
        return dataclasses.replace(self.moved(TaskStatus.FAILED, now_ms), error=reason)

    def completed(self, detail: str, now_ms: int) -> TrainingTask:
        """The task COMPLETED; an ended one stays as it is."""
        if self.status.final:
            return self
        return dataclasses.replace(self.moved(TaskStatus.COMPLETED, now_ms, detail), progress=1.0)

    def rolled_back(self, reason: str, now_ms: int) -> TrainingTask:
        """The COMPLETED task FAILED after all, as its card does not serve any more."""
        if self.status is not TaskStatus.COMPLETED:
            return self
        return dataclasses.replace(
            self, status=TaskStatus.FAILED, error=reason, updated_at_ms=now_ms
        )

    def noted(self, detail: str, now_ms: int) -> TrainingTask:
        """The task, ended or not, with something that people should see."""
        return dataclasses.replace(self, detail=detail, updated_at_ms=now_ms)

    def cancelled(self, now_ms: int) -> TrainingTask:
        """The task CANCELLED; one that is CANCELLED already stays as it is.

        Raises:
            errors.PreconditionError: it has ended otherwise, or its card is being published.
        """
        if self.status is TaskStatus.CANCELLED:
            return self
        return self.moved(TaskStatus.CANCELLED, now_ms)

    def retried(self, new_id: str, now_ms: int) -> TrainingTask:
        """A new task for the same gap.

        Raises:
            errors.PreconditionError: this one did not fail and was not cancelled.
        """
        if self.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            raise errors.PreconditionError(
                f"task {self.id} is {self.status.value}; only FAILED and CANCELLED ones are retried"
            )
        return TrainingTask(
            id=new_id,
            trigger_query=self.trigger_query,
            other_queries=self.other_queries,
            topic=self.topic,
            document=self.document,
            repository=self.repository,
            topic_key=self.topic_key,
            priority=self.priority,
            domain=self.domain,
            tenant=self.tenant,
            demand=self.demand,
            retry_of=self.id,
            corrections=self.corrections,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
