"""The router as its process has it: the one place of this area that builds one.

`router` wires what `services.router.server` wires, with the settings' defaults. What the area
measures beside it lies in the other modules.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from benchmarks import results
from benchmarks.router import intents, outcomes, vectors
from services.router import embedding, practice, profile, vector_store, words
from services.router import router as routers
from shared import settings as config
from shared.models import embedder as embedders

EMBEDDER_ID = embedders.VECTORS_ID


class CountingEmbedder:
    """The embedder, which counts what it embeds."""

    def __init__(self) -> None:
        """Loads the weights."""
        self._embedder = embedders.Embedder()
        self.vectors_id = self._embedder.vectors_id
        self.embedded = 0

    def embed(self, texts: Sequence[str]) -> vectors.Matrix:
        """Unit vectors of shape (texts, dimension)."""
        self.embedded += len(texts)
        return self._embedder.embed(texts)

    def vocabulary(self) -> list[str]:
        """Its words, most frequent first."""
        return self._embedder.vocabulary()


@contextlib.asynccontextmanager
async def embedder(
    load: Callable[[], embedding.TextModel] = embedders.Embedder,
) -> AsyncIterator[embedding.Embedding]:
    """The embedder in its thread."""
    started = embedding.Embedding(load)
    try:
        await started.start()
        yield started
    finally:
        await started.stop()


@contextlib.asynccontextmanager
async def router(
    embedder: embedding.Embedding,
    cards: Mapping[str, Sequence[str]],
    embed: practice.Embed,
    embed_query: routers.EmbedQuery,
) -> AsyncIterator[routers.LoRARouter]:
    """A router with cards, once it is calibrated.

    Args:
        embedder: whose practice ground and vocabulary the router has.
        cards: examples by name.
        embed: the vectors of examples: the embedder's, perhaps from an earlier run.
        embed_query: the vector of a question, likewise.
    """
    built = routers.LoRARouter(
        embed_query=embed_query,
        embed=embed,
        weigher=words.Words(embedder.vocabulary()),
        ground=await _ground(embedder),
        threshold=config.Router().dissonance_threshold,
    )
    try:
        await built.register_cards(
            profile.Card(
                name=name,
                digest=hashlib.sha256(name.encode()).hexdigest(),
                domain="",
                description="",
                examples=tuple(examples),
            )
            for name, examples in cards.items()
        )
        await built.settled()
        yield built
    finally:
        await built.close()


async def _ground(embedder: embedding.Embedding) -> practice.Practice:
    path = results.KEPT / "router" / "vectors.sqlite"
    kept = vector_store.VectorStore(path, embedder.vectors_id, embedder.embed)
    try:
        return await practice.prepare(kept.embed, embedder.vocabulary())
    finally:
        await kept.close()


async def answers(router: routers.LoRARouter, trial: intents.Trial) -> outcomes.Routed:
    """What it says to the questions of a trial whose cards it has."""
    first, score, probability, refused = [], [], [], []
    for text in trial.asked:
        decision = await router.select(text)
        best = decision.candidates[0] if decision.candidates else None
        first.append(best.card.partition("@")[0] if best is not None else "")
        probability.append(best.probability if best is not None else 0.0)
        score.append(decision.confidence)
        refused.append(decision.dissonance)
    return outcomes.routed(trial, first, score, probability, refused)
