"""One set's way through the factory's workflow, and the partners that it is handed there."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import results
from benchmarks.training import made_up
from services.distiller import delivery, distillation
from services.factory import (
    board,
    dissonance,
    feedback,
    partners,
    stages,
    tasks,
    trainers,
    workflow,
)
from services.inference import answering
from services.trainer import gate, trainer
from shared import costs, errors
from shared.flight import datasets

if TYPE_CHECKING:
    from benchmarks.training import house as houses

FOLDER = results.KEPT / "training"
"""Where drafts are kept."""
_CONFIRM_S = 5.0


@dataclasses.dataclass(frozen=True)
class Learned:
    """What became of one set."""

    told: made_up.FactSet
    card: str
    """`name@digest` of the published card; empty where none was."""
    stage: str
    """That stopped it: distiller, gate, or a row of the gate; empty where none did."""
    reason: str
    tries: tuple[partners.Proof, ...]
    """What the gate found, training by training."""
    pairs: tuple[datasets.QAPair, ...]
    """That were trained on at last."""


async def learned(
    house: houses.House, told: made_up.FactSet, folder: pathlib.Path, kept: board.TaskBoard
) -> Learned:
    """Has a set learned, as a task of its own.

    Args:
        house: with what it is learned.
        told: the set.
        folder: for the distiller's state.
        kept: the factory's tasks.
    """
    return await _Work(house, told, folder).learned(kept)


class _Work:
    """The factory's partners for one set."""

    def __init__(self, house: houses.House, told: made_up.FactSet, folder: pathlib.Path) -> None:
        self._house, self._told = house, told
        self._cloud = house.cloud(told, folder / "distiller")
        self._proofs: list[partners.Proof] = []
        self._pairs: tuple[datasets.QAPair, ...] = ()
        self._card, self._at = "", ""

    async def learned(self, kept: board.TaskBoard) -> Learned:
        """Runs the workflow."""
        told, now_ms = self._told, kept.now_ms()
        first, *others = told.queries
        task = tasks.TrainingTask(
            id=told.name,
            trigger_query=first,
            other_queries=tuple(others),
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        await kept.record(dissonance.CognitiveDissonance(told.name, first, 0.1, now_ms), task)
        pool = trainers.TrainerPool({"here": self}, _serves, grace_s=0.0)
        all_of_it = partners.Partners(self, pool, self, self)
        work = stages.Stages(kept, all_of_it, step_timeout_s=3600, confirm_s=_CONFIRM_S)
        await workflow.SkillDistiller(work, self._run_step).learn(told.name)
        ended = await kept.get(told.name)
        failed = (
            {row.name for row in self._proofs[-1].rows if not row.passed}
            if (self._proofs)
            else set()
        )
        stage = "" if self._card else ", ".join(sorted(failed)) or self._at
        if ended.status is tasks.TaskStatus.FAILED and self._card:
            stage = self._at
        return Learned(told, self._card, stage, ended.error, tuple(self._proofs), self._pairs)

    async def _run_step(
        self, name: str, body: Callable[[], Awaitable[dict[str, Any]]]
    ) -> dict[str, Any]:
        if name not in ("fail", "complete"):
            self._at = name
        return await body()

    async def locate(self, query: str) -> str:
        return ""

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
        request = distillation.DistilRequest(task_id, tuple(queries))
        return await self._distilled(request)

    async def enlarge(
        self,
        task_id: str,
        of_task: str,
        weak: Sequence[str],
        on_progress: partners.OnProgress,
    ) -> partners.Distilled:
        request = distillation.DistilRequest(task_id, of_task=of_task, weak=tuple(weak))
        return await self._distilled(request)

    async def cancel(self, task_ids: Sequence[str]) -> None:
        """Nothing is ever cancelled here."""

    async def repositories(self) -> list[partners.Repository]:
        return []

    async def spending(self, task_id: str) -> costs.Spent:
        return costs.Spent()

    async def _distilled(self, request: distillation.DistilRequest) -> partners.Distilled:
        deliver = delivery.Delivery(self._cloud, lambda data: self._house.put("dataset", data))
        delivered = await deliver.work(request, _unheard)
        result = delivered.result
        self._pairs = result.pairs
        return partners.Distilled(
            dataset=partners.Ticket(
                "dataset", delivered.digest, delivered.size_bytes, result.skill_name
            ),
            skill_name=result.skill_name,
            domain=result.domain,
            description=result.description,
            teacher=result.teacher,
            facts=len(result.pairs),
            questions=sum(1 + len(pair.paraphrases) for pair in result.pairs),
            held_out=sum(len(pair.held_out) for pair in result.pairs),
            triggers=tuple(
                partners.Trigger(one.query, one.expected_answer) for one in result.triggers
            ),
            unanswered=result.unanswered,
        )

    async def train(
        self, order: partners.TrainingOrder, on_progress: partners.OnProgress
    ) -> partners.Trained:
        trained = await self._house.shop(self._told).train(
            trainer.Order(
                task_id=self._house.run_id(order.run_id, order.dataset.digest),
                dataset_digest=order.dataset.digest,
                skill_name=order.skill_name,
                version=order.version,
                domain=order.domain,
                description=order.description,
                teacher=order.teacher,
                seed=order.seed,
                rank_factor=order.rank_factor,
            ),
            _unheard,
        )
        draft = partners.Ticket("card", trained.draft_digest, trained.draft_bytes, order.skill_name)
        return partners.Trained(
            draft, trained.steps, trained.final_loss, trained.trained_right, trained.seconds
        )

    async def prove(
        self,
        run_id: str,
        dataset: partners.Ticket,
        draft: partners.Ticket,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
        before: partners.Published | None = None,
    ) -> partners.Proof:
        task_id = self._house.run_id(run_id, dataset.digest)
        # The gate is what is measured: no verdict of an earlier run counts.
        (FOLDER / "tasks" / task_id / "proved.json").unlink(missing_ok=True)
        proved = await self._house.shop(self._told).prove(
            task_id,
            dataset.digest,
            draft.digest,
            [gate.Trigger(one.query, one.expected_answer) for one in triggers],
            _unheard,
        )
        proof = partners.Proof(
            passed=proved.passed,
            rows=tuple(
                partners.GateRow(row.name, row.right, row.asked, row.required, row.passed)
                for row in proved.rows
            ),
            card=partners.Ticket("card", proved.card_digest, proved.card_bytes, draft.name)
            if proved.passed
            else None,
            seconds=proved.seconds,
            signature_json=proved.signature_json,
            curable=proved.curable,
            wrong=proved.wrong,
        )
        self._proofs.append(proof)
        return proof

    async def recheck(
        self,
        recheck_id: str,
        card: partners.Published,
        triggers: Sequence[partners.Trigger],
        on_progress: partners.OnProgress,
    ) -> partners.Rechecked:
        raise NotImplementedError("a set is learned once")

    async def versions(self, name: str) -> list[str]:
        return []

    async def latest(self, name: str) -> partners.Published | None:
        return None

    async def owners(self, card: str) -> Sequence[str] | None:
        return None

    async def serving(self, name: str) -> str:
        return ""

    async def versions_before(self, card: str) -> Sequence[str]:
        return ()

    async def commit(
        self, idempotency_key: str, ticket: partners.Ticket, signature_json: str = ""
    ) -> str:
        if ticket.kind == "card":
            self._card = await self._house.install(ticket.digest)
        return self._card

    async def withdraw(self, idempotency_key: str, card: str, before: str) -> str:
        return card

    async def complete(self, prefix: str, model: str) -> partners.Reply:
        raise errors.InternalError("no code base is learned here")

    async def ask(self, query: str) -> partners.Reply:
        answer = await self._house.answers.answer(answering.Question(query, no_learning=True))
        shares = [share.card for share in answer.shares]
        return partners.Reply(answer.generation.answer, shares[0] if shares else "")


async def _unheard(share: float, detail: str, figures: Mapping[str, float] | None = None) -> None:
    """Progress that nobody waits for."""


async def _serves(address: str) -> bool:
    return True
