"""The index alone, at many cards: how fast, and how much of what exact search finds.

A million questions can't be embedded in the time of a benchmark. Each card's vector is a mixture of
two real questions' vectors, mostly of the first: what a card about both would have.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import psutil

from benchmarks import results
from benchmarks.router import cores, production, vectors
from shared.models.embedded.recipe import conversations

_SIZES = (("index_100k_ms", 100_000, 1.0), ("index_1m_ms", 1_000_000, 5.0))
_ASKED = 200
_TOP = 10
_LEAST_RECALL = 0.98
_MOST_OF_OTHER = 0.5
_BLOCK = 50_000


async def measure(known: vectors.Vectors) -> list[results.Row]:
    """Times searches at both sizes; recall and memory are those of the larger.

    Args:
        known: makes the vectors of the questions that are mixed.
    """
    make = production.index()
    if make is None:
        return rows(None, _SIZES, None)
    texts = [text for fact in conversations.known_facts() for text in fact.questions]
    return rows(await known.embed(list(dict.fromkeys(texts))), _SIZES, make)


def rows(
    questions_Q_D: vectors.Matrix | None,
    sizes: Sequence[tuple[str, int, float]],
    make: production.MakeIndex | None,
) -> list[results.Row]:
    """One row a size, with its most milliseconds; recall and memory at the last.

    Args:
        questions_Q_D: real ones to mix; None where there is no index to fill.
        sizes: name of the row, number of cards, most milliseconds.
        make: the index.
    """
    found = []
    recall: float | None = None
    held_mib: float | None = None
    note = "not there yet: the router searches every card"
    for name, cards, most in sizes:
        taken: float | None = None
        if make is not None and questions_Q_D is not None:
            cards_C_D = mixed(questions_Q_D, cards, seed=0)
            asked_A_D = mixed(questions_Q_D, _ASKED, seed=1)
            before = psutil.Process().memory_info().rss
            nearest = make(cards_C_D)
            held_mib = (psutil.Process().memory_info().rss - before) / 2**20
            with cores.one() as held:
                taken, recall = _searched(nearest, cards_C_D, asked_A_D)
            note = f"mixtures of {len(questions_Q_D):,} real questions' vectors, {held}"
        found.append(results.Row(name, taken, "ms", most=most, note=note))
    return [
        *found,
        results.Row(f"index_recall_at_{_TOP}", recall, "share", least=_LEAST_RECALL, note=note),
        results.Row("index_1m_mib", held_mib, "MiB", note=note),
    ]


def mixed(questions_Q_D: vectors.Matrix, count: int, seed: int) -> vectors.Matrix:
    """Unit vectors between two questions each, shape (count, dimension), float32."""
    rng = np.random.default_rng(seed)
    made_C_D = np.empty((count, questions_Q_D.shape[1]), dtype=np.float32)
    for start in range(0, count, _BLOCK):
        rows_B_D = made_C_D[start : start + _BLOCK]
        one, other = rng.integers(len(questions_Q_D), size=(2, len(rows_B_D)))
        share_B_1 = rng.uniform(0, _MOST_OF_OTHER, (len(rows_B_D), 1)).astype(np.float32)
        rows_B_D[:] = (1 - share_B_1) * questions_Q_D[one] + share_B_1 * questions_Q_D[other]
        rows_B_D /= np.maximum(np.linalg.norm(rows_B_D, axis=1, keepdims=True), 1e-6)
    return made_C_D


def exact(cards_C_D: vectors.Matrix, asked_A_D: vectors.Matrix, top: int) -> npt.NDArray[np.int64]:
    """Numbers of the nearest cards to each question, shape (questions, top), nearest first."""
    scores, numbers = [], []
    for start in range(0, len(cards_C_D), _BLOCK):
        similar_A_B = asked_A_D @ cards_C_D[start : start + _BLOCK].T
        best_A_T = np.argsort(-similar_A_B, axis=1)[:, :top]
        scores.append(np.take_along_axis(similar_A_B, best_A_T, axis=1))
        numbers.append(best_A_T + start)
    order = np.argsort(-np.concatenate(scores, axis=1), axis=1, kind="stable")[:, :top]
    return np.take_along_axis(np.concatenate(numbers, axis=1), order, axis=1)


def _searched(
    nearest: production.Nearest, cards_C_D: vectors.Matrix, asked_A_D: vectors.Matrix
) -> tuple[float, float]:
    """Median milliseconds, and the share of the exact nearest that were found."""
    nearest(asked_A_D[0], _TOP)
    taken, found = [], []
    for asked_D in asked_A_D:
        began = time.perf_counter()
        found.append(nearest(asked_D, _TOP))
        taken.append((time.perf_counter() - began) * 1000)
    wanted = exact(cards_C_D, asked_A_D, _TOP)
    hits = [
        len(set(map(int, one)) & set(map(int, own))) for one, own in zip(found, wanted, strict=True)
    ]
    return statistics.median(taken), sum(hits) / wanted.size
