"""The router with many cards: time of a decision without embedding, memory, and the index alone.

Nobody has a million cards, and a million questions can't be embedded in the time of a benchmark. A
virtual card of one text stands for each. Its vector is a mixture of two real questions' vectors,
mostly of the first; its text is the first question and a name of two words of the embedder's
vocabulary. What is asked is made in that way, too, of other real questions. Knows nothing about how
the router finds its cards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import statistics
import time
from collections.abc import Iterator, Sequence

import numpy as np
import psutil

from benchmarks import results
from benchmarks.router import cores, intents, production, vectors
from services.router import embedding, profile
from services.router import router as routers
from shared.models.embedded.recipe import conversations

SIZES = (("100", 100), ("10k", 10_000), ("100k", 100_000), ("1m", 1_000_000))
INDEX_MOST_MS = {"100k": 1.0, "1m": 5.0}
_LEAST_RECALL = 0.98
_ASKED = 200
_TOP = 10
_BLOCK = 10_000


@dataclasses.dataclass(frozen=True)
class Mixtures:
    """Texts with vectors, as many as are wanted."""

    texts: Sequence[str]
    """Real questions."""
    vectors_Q_D: vectors.Matrix
    vocabulary: Sequence[str]

    def block(self, seed: int, count: int) -> tuple[list[str], vectors.Matrix]:
        """Some texts and their vectors, the same for the same seed."""
        rng = np.random.default_rng(seed)
        one, other = rng.integers(len(self.texts), size=(2, count))
        share_B_1 = rng.uniform(0, 0.5, (count, 1)).astype(np.float32)
        mixed = (1 - share_B_1) * self.vectors_Q_D[one] + share_B_1 * self.vectors_Q_D[other]
        mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6)
        names = rng.integers(len(self.vocabulary), size=(count, 2))
        texts = [
            f"{self.texts[at]} of {self.vocabulary[a].title()} {self.vocabulary[b].title()}"
            for at, (a, b) in zip(one, names, strict=True)
        ]
        return texts, mixed


async def measure(
    embedder: embedding.Embedding, known: vectors.Vectors, data: intents.Intents | None
) -> list[results.Row]:
    """Fills one router after another, the largest last.

    Args:
        embedder: whose practice the routers have.
        known: vectors of the real questions.
        data: cards are made of its training questions and asked what is made of its test
            questions; without it both are made of the known facts of the base's recipe.
    """
    if data is None:
        facts = [fact.questions for fact in conversations.known_facts()]
        told = [text for questions in facts for text in questions[1:]]
        tested = [questions[0] for questions in facts]
    else:
        told = [text for texts in data.train.values() for text in texts]
        tested = [text for text, _ in data.test]
    indexed, asked = [
        Mixtures(texts, await known.embed(texts), embedder.vocabulary()) for texts in (told, tested)
    ]
    return [row for name, cards in SIZES for row in await at(embedder, indexed, asked, name, cards)]


async def at(
    embedder: embedding.Embedding, indexed: Mixtures, asked: Mixtures, name: str, cards: int
) -> list[results.Row]:
    """The rows of one number of cards.

    Args:
        embedder: whose practice the router has.
        indexed: what the cards are made of.
        asked: what the questions are made of.
        name: of the number, in the names of rows.
        cards: how many.
    """
    known: dict[str, vectors.Matrix] = {}

    async def look_up(texts: Sequence[str]) -> vectors.Matrix:
        return np.stack([known[text] for text in texts])

    async def look_up_one(text: str) -> vectors.Matrix:
        return known[text]

    questions, asked_A_D = asked.block(seed=1_000_000, count=_ASKED)
    async with production.router(embedder, {}, look_up, look_up_one) as router:
        before, began = _held_mib(), time.perf_counter()
        for start, (texts, block_B_D) in _blocks(indexed, cards):
            known |= dict(zip(texts, block_B_D, strict=True))
            await router.register_cards(
                (_card(start + at, text) for at, text in enumerate(texts)), virtual=True
            )
            known.clear()
        filled_s = time.perf_counter() - began
        await router.settled()
        held_mib = _held_mib() - before
        known |= dict(zip(questions, asked_A_D, strict=True))
        with cores.one() as core:
            taken = [await _milliseconds(router, text) for text in questions]
            alone: list[float] = []
            found: list[list[str]] = []
            for asked_D in asked_A_D if name in INDEX_MOST_MS else ():
                began = time.perf_counter()
                found.append(router.stock.nearest(asked_D, _TOP))
                alone.append((time.perf_counter() - began) * 1000)
    note = f"{cards:,} virtual cards of one text, mixtures of real questions; {core}"
    rows = [
        results.Row(f"decision_{name}_ms", statistics.median(taken), "ms", note=note),
        results.Row(f"decision_{name}_p99_ms", float(np.percentile(taken, 99)), "ms", note=note),
        results.Row(f"cards_{name}_mib", held_mib, "MiB", note="held by that many cards"),
        results.Row(f"register_{name}_s", filled_s, "s", note="embedding not included"),
    ]
    if name in INDEX_MOST_MS:
        reached = recall(found, indexed, cards, asked_A_D)
        rows += [
            results.Row(
                f"index_{name}_ms",
                statistics.median(alone),
                "ms",
                most=INDEX_MOST_MS[name],
                note=note,
            ),
            results.Row(
                f"index_recall_at_{_TOP}" + ("" if cards == SIZES[-1][1] else f"_{name}"),
                reached,
                "share",
                least=_LEAST_RECALL,
                note=f"against exact search of the same; {note}",
            ),
        ]
    return rows


def _blocks(
    indexed: Mixtures, cards: int
) -> Iterator[tuple[int, tuple[list[str], vectors.Matrix]]]:
    for start in range(0, cards, _BLOCK):
        yield start, indexed.block(start // _BLOCK, min(_BLOCK, cards - start))


def _card(number: int, text: str) -> profile.Card:
    name = f"card-{number}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return profile.Card(name, digest, "", text, (text,), stand_in=True)


def recall(
    found: Sequence[Sequence[str]], indexed: Mixtures, cards: int, asked_A_D: vectors.Matrix
) -> float:
    """Share of the exactly nearest cards that were found."""
    scores_A_T = np.zeros((len(asked_A_D), 0), dtype=np.float32)
    numbers_A_T = np.zeros((len(asked_A_D), 0), dtype=np.int64)
    for start, (_, block_B_D) in _blocks(indexed, cards):
        places_B = np.arange(start, start + len(block_B_D))
        scores_A_T = np.concatenate([scores_A_T, asked_A_D @ block_B_D.T], axis=1)
        numbers_A_T = np.hstack([numbers_A_T, np.tile(places_B, (len(asked_A_D), 1))])
        order = np.argsort(-scores_A_T, axis=1, kind="stable")[:, :_TOP]
        scores_A_T = np.take_along_axis(scores_A_T, order, axis=1)
        numbers_A_T = np.take_along_axis(numbers_A_T, order, axis=1)
    hits = [
        len({f"card-{number}" for number in wanted} & set(own))
        for wanted, own in zip(numbers_A_T.tolist(), found, strict=True)
    ]
    return sum(hits) / numbers_A_T.size


async def _milliseconds(router: routers.LoRARouter, text: str) -> float:
    began = time.perf_counter()
    await router.select(text)
    return (time.perf_counter() - began) * 1000


def _held_mib() -> float:
    held: int = psutil.Process().memory_info().rss
    return held / 2**20
