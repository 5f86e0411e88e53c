"""The learning loop in one process: the factory's workflow and its real partners, without gRPC.

Distiller, trainer, gate, router and node are those that run in production; what travels over the
network there is handed over here. Drafts are kept by what they were made from, so that a run that
was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks.router import production
from benchmarks.router import vectors as kept_vectors
from benchmarks.training import actors, made_up, work
from services.distiller import distiller, enlarging, journal, rewording
from services.factory import board, ledger
from services.inference import answering
from services.inference import engine as engines
from services.router import embedding, profile
from services.router import router as routers
from services.trainer import gate, trainer, workshop
from shared import settings as config
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import signature
from shared.models import base as bases
from shared.security import callers

FOLDER = work.FOLDER


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
        self._careless = self._workshop(actors.NoOpTrainer(base, *made))

    async def learn(self, told: made_up.FactSet) -> work.Learned:
        """Has a set learned as a task of its own, to its end."""
        with tempfile.TemporaryDirectory() as folder:
            state = pathlib.Path(folder)
            kept = board.TaskBoard(ledger.Ledger(f"sqlite:///{state / 'factory.sqlite'}"))
            try:
                return await work.learned(self, told, state, kept)
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
        teacher, kept = actors.Teacher(told), journal.Journal(folder)
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
            tuple(
                gate.Tried(one.question, one.card, one.card_without, one.similarity, one.reading)
                for one in tried
            )
            for tried in (found.questions, found.others)
        )
        return gate.Rehearsal(asked, others)

    async def _route(
        self, query: str, no_learning: bool, deadline_s: float, tenants: callers.Tenants
    ) -> answering.Routing:
        decided = await self.router.select(query, top_k=4)
        return answering.Routing(
            candidates=tuple(
                answering.Candidate(one.card, one.probability, one.similarity, one.read_as)
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
            self.rewriting,
        )


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
