"""Fits the weights of the document ranker: `SKILLMESH_DATA=... python -m benchmarks.fit_ranking`.

Data: questions about Wikipedia passages (SQuAD) in `seal_gpt4_1_val.json`. A passage of a document
counts as right where the expected answer stands in it. Prints the share of questions whose right
passage came first, on the half of the titles that was not fitted, and the weights.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import sys
from collections.abc import Sequence

import numpy as np
import torch

from services.distiller.documents import ranking, reading
from shared import grading
from shared.models import embedder as embedders

Question = tuple[ranking.Matrix, ranking.Matrix]
"""Features (passages, features) and which passages are right (passages,)."""
_PASSAGES_A_DOCUMENT = 3
_RIDGE = 0.001


def questions(folder: pathlib.Path) -> dict[str, list[Question]]:
    """The features of every question, by title."""
    rows = json.loads((folder / "seal_gpt4_1_val.json").read_text(encoding="utf-8"))
    by_title: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_title.setdefault(row["title"], []).append(row)
    embedder = embedders.Embedder()
    found: dict[str, list[Question]] = {}
    for title, group in by_title.items():
        for at in range(0, len(group), _PASSAGES_A_DOCUMENT):
            chunk = group[at : at + _PASSAGES_A_DOCUMENT]
            text = "\n\n".join(str(row["context"]).replace("\n", " ") for row in chunk)
            document = reading.parse(f"{title}.md", f"# {title}\n\n{text}")
            asked = [(q["question"], q["answer"]) for row in chunk for q in row["questions"]]  # type: ignore[attr-defined]
            found.setdefault(title, []).extend(features(document, asked, embedder))
    return found


def features(
    document: reading.Document,
    asked: Sequence[tuple[str, str]],
    embedder: embedders.Embedder,
) -> list[Question]:
    """Features and right passages of (question, answer) pairs about one document."""

    async def embed(texts: Sequence[str]) -> embedders.Vectors:
        return embedder.embed(texts)

    indexed = asyncio.run(ranking.IndexedDocument.index(document, embed))
    found = []
    for question, answer in asked:
        plain = ranking.unnamed(question, document.title)
        vectors = embedder.embed([question, plain])
        right = np.array([_says(p.text, answer) for p in document.passages], dtype=np.float64)
        if right.any():
            found.append((indexed.features(question, vectors[0], vectors[1]), right))
    return found


def fit(data: Sequence[Question]) -> ranking.Matrix:
    """Weights that make the right passages likeliest: softmax regression with a ridge."""
    rows = [(torch.tensor(features), torch.tensor(right) > 0) for features, right in data]
    weights = torch.zeros(len(ranking.FEATURES), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200)

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for matrix, right in rows:
            scores = matrix @ weights
            total = total - scores[right].logsumexp(0) + scores.logsumexp(0)
        value = total / len(rows) + _RIDGE * (weights**2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return weights.detach().numpy()


def first_right(data: Sequence[Question], weights: ranking.Matrix) -> float:
    """Share of questions whose best-ranked passage is right."""
    return float(np.mean([right[int(np.argmax(rows @ weights))] for rows, right in data]))


def _says(text: str, answer: str) -> bool:
    given, wanted = grading.normalise(text), grading.normalise(answer)
    return any(given[at : at + len(wanted)] == wanted for at in range(len(given)))


def main() -> None:
    """Fits and prints."""
    folder = os.environ.get("SKILLMESH_DATA")
    if folder is None:
        sys.exit("set SKILLMESH_DATA to the folder that holds seal_gpt4_1_val.json")
    by_title = questions(pathlib.Path(folder))
    titles = sorted(by_title)
    random.Random(0).shuffle(titles)
    fitted = [q for title in titles[::2] for q in by_title[title]]
    unseen = [q for title in titles[1::2] for q in by_title[title]]
    print(f"right passage first, unseen titles: {first_right(unseen, fit(fitted)):.3f}")
    weights = fit([*fitted, *unseen])
    for name, weight in zip(ranking.FEATURES, weights, strict=True):
        print(f"{name:28} {weight:.2f}")


if __name__ == "__main__":
    main()
