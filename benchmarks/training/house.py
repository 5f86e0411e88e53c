"""The learning loop in one process: the factory's workflow and its real partners, without gRPC.

Distiller, trainer, gate, router and node are those that run in production; what travels over the
network there is handed over here. Drafts are kept by what they were made from, so that a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import pathlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from benchmarks import results
from benchmarks.router import production
from benchmarks.router import vectors as kept_vectors
from benchmarks.training import made_up
from services.distiller import delivery, distillation, distiller, enlarging, journal, rewording
from services.distiller.providers import base as providers
from services.factory import board, ledger, partners, stages, tasks, trainers, workflow
from services.inference import answering
from services.inference import engine as engines
from services.router import embedding, profile
from services.router import router as routers
from services.trainer import gate, trainer, workshop
from shared import costs
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.flight import datasets
from shared.models import base as bases

FOLDER = results.KEPT / "training"
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


class Teacher(providers.CloudProvider):
    """Says what a made-up set says."""

    name = "made-up"
    queries_a_call = 64

    def __init__(self, told: made_up.FactSet) -> None:
        """Takes the set."""
        self._told, self._asked = told, False

    async def generate_qa(self, request: providers.QARequest) -> list[datasets.QAPair]:
        """All pairs of the set; those of its second thoughts from the second call on."""
        pairs = self._told.again if self._asked else self._told.pairs
        self._asked = True
        return list(pairs)

    async def subject(
        self, request: providers.QARequest, pairs: Sequence[datasets.QAPair]
    ) -> providers.Subject:
        """The thing that the set is about."""
        return providers.Subject(self._told.title)


class NoOpTrainer(trainer.LoRATrainer):
    """Makes cards whose weights change nothing."""

    def train_qa(
        self,
        pairs: Sequence[datasets.QAPair],
        output_path: pathlib.Path,
        order: trainer.Order,
        on_progress: trainer.OnProgress,
    ) -> trainer.Outcome:
        """A card as after no training at all."""
        self._recipe = self._recipe.model_copy(update={"max_steps": 1, "least_steps": 1})
        outcome = super().train_qa(pairs, output_path, order, on_progress)
        card = formats.LoRAFormat.load(output_path)
        nothing = {
            path: weights._replace(lora_b=pa.py_buffer(bytes(weights.lora_b.size)))
            for path, weights in card
        }
        formats.LoRAFormat.save(cards.LoRACard(card.manifest, nothing), output_path)
        return outcome


class House:
    """Everything that cards are learned, published and asked with."""

    def __init__(
        self,
        embedder: embedding.Embedding,
        router: routers.LoRARouter,
        engine: engines.ArrowEngine,
        base: bases.BaseModel,
        settings: config.Settings,
    ) -> None:
        """Takes the started parts.

        Args:
            embedder: makes vectors.
            router: without cards.
            engine: without cards, with a base model of its own.
            base: the trainer's.
            settings: recipe, gate and node.
        """
        self.router, self.engine = router, engine
        self.published: list[str] = []
        """`name@digest`."""
        self._settings = settings
        self._bytes: dict[str, bytes] = {}
        self._embed = embedder.embed
        self._rewording = rewording.Rewording(self._embed, cache_dir=FOLDER / "families")
        self.rewriting = settings.inference.query_rewriting.get(settings.model.base)
        self.answers = answering.Answering(engine, self._route, self.rewriting)
        made = (settings.model.recipe(), settings.trainer, FOLDER)
        self._recipe = hashlib.sha256(settings.model.recipe().model_dump_json().encode())
        self._signer = signature.Signer.load_or_make(FOLDER / "key.pem")
        self._shop = self._workshop(trainer.LoRATrainer(base, *made))
        self._careless = self._workshop(NoOpTrainer(base, *made))

    async def learn(self, told: made_up.FactSet) -> Learned:
        """Has a set learned as a task of its own, to its end."""
        with tempfile.TemporaryDirectory() as folder:
            state = pathlib.Path(folder)
            work = _Work(self, told, state)
            kept = board.TaskBoard(ledger.Ledger(f"sqlite:///{state / 'factory.sqlite'}"))
            try:
                return await work.learned(kept)
            finally:
                await kept.close()

    async def close(self) -> None:
        """Ends the trainers."""
        await self._shop.close()
        await self._careless.close()

    def shop(self, told: made_up.FactSet) -> workshop.Workshop:
        """Who trains a set."""
        return self._careless if told.flaw is made_up.Flaw.NO_OP else self._shop

    def cloud(self, told: made_up.FactSet, folder: pathlib.Path) -> enlarging.Enlarger:
        """Who distils a set."""
        teacher, kept = Teacher(told), journal.Journal(folder)
        settings = self._settings.distiller
        plain = distiller.CloudDistiller(teacher, kept, settings, self._rewording, self._embed)
        return enlarging.Enlarger(plain, teacher, kept, settings, self._rewording)

    def run_id(self, run_id: str, dataset_digest: str) -> str:
        """Names a training by all that it is made from: other filters make other datasets."""
        return f"{run_id}-{dataset_digest[:8]}-{self._recipe.hexdigest()[:6]}"

    async def put(self, kind: str, data: bytes) -> str:
        """Keeps bytes as the store's data plane does; their digest."""
        digest = hashlib.sha256(data).hexdigest()
        self._bytes[digest] = data
        return digest

    async def get(self, digest: str) -> bytes:
        """The bytes of a digest."""
        return self._bytes[digest]

    async def install(self, digest: str) -> str:
        """Publishes a sealed card to router and node; its identity."""
        card = formats.LoRAFormat.from_bytes(self._bytes[digest])
        identity = manifests.card_identity(card.manifest.name, digest)
        await self.engine.load_lora(card, identity)
        await self.router.register_card(
            profile.from_manifest(card.manifest.name, digest, card.manifest)
        )
        await self.router.settled()
        self.published.append(identity)
        return identity

    async def remove(self, identity: str) -> None:
        """Takes a card from router and node again."""
        await self.router.unregister_card(identity.partition("@")[0])
        await self.engine.remove_lora(identity)
        await self.router.settled()
        self.published.remove(identity)

    async def rehearse(
        self, manifest: manifests.Manifest, digest: str, questions: Sequence[str]
    ) -> gate.Rehearsal:
        """What the router would do with a draft among its cards."""
        card = profile.from_manifest(manifest.name, digest, manifest)
        found = await self.router.rehearse(card, questions)
        asked, others = (
            tuple(gate.Tried(one.question, one.card, one.card_without) for one in tried)
            for tried in (found.questions, found.others)
        )
        return gate.Rehearsal(asked, others)

    async def _route(
        self, query: str, no_learning: bool, deadline_s: float, tenant: str
    ) -> answering.Routing:
        decided = await self.router.select(query, top_k=4)
        return answering.Routing(
            candidates=tuple(
                answering.Candidate(
                    one.card, one.probability, one.similarity, one.reading or one.nearest_example
                )
                for one in decided.candidates
            ),
            none_probability=decided.none_probability,
            confidence=decided.confidence,
            dissonance=decided.dissonance,
        )

    def _workshop(self, who: trainer.LoRATrainer) -> workshop.Workshop:
        return workshop.Workshop(
            who,
            self,
            FOLDER / "tasks",
            time.monotonic,
            self._signer,
            self,
            self._settings.trainer,
        )


async def _serves(address: str) -> bool:
    return True


@contextlib.asynccontextmanager
async def opened(settings: config.Settings) -> AsyncIterator[House]:
    """A house without cards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        embedder = await stack.enter_async_context(production.embedder())
        kept = kept_vectors.Vectors(FOLDER / "vectors.npz", embedder.embed)
        router = await stack.enter_async_context(
            production.router(embedder, {}, kept.embed, embedder.query)
        )
        # Two base models: a card in training must not meet one that serves.
        engine = engines.ArrowEngine(bases.load(settings.model.base), settings.inference)
        engine.start()
        stack.push_async_callback(engine.stop)
        house = House(embedder, router, engine, bases.load(settings.model.base), settings)
        stack.push_async_callback(house.close)
        yield house


class _Work:
    """The factory's partners for one set."""

    def __init__(self, house: House, told: made_up.FactSet, folder: pathlib.Path) -> None:
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
        await kept.record(tasks.CognitiveDissonance(told.name, first, 0.1, now_ms), task)
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

    async def ask(self, query: str) -> partners.Reply:
        answer = await self._house.answers.answer(answering.Question(query, no_learning=True))
        shares = [share.card for share in answer.shares]
        return partners.Reply(answer.generation.answer, shares[0] if shares else "")


async def _unheard(share: float, detail: str, figures: Mapping[str, float] | None = None) -> None:
    """Progress that nobody waits for."""
