"""Asks semantic-router, in the environment that it has to itself, with vectors made beforehand.

Started by `peers` as `python -I semantic_router_process.py FOLDER`. FOLDER holds `vectors.npy` and
`work.json`: the vectors' texts, and trials with cards and questions. Writes `answers.json` there:
the version, and for each trial the first route and its score to each question. Imports nothing of
this project, which is not installed there.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import pathlib
import sys
from typing import Any

import numpy as np
import semantic_router
import semantic_router.encoders
import semantic_router.index


class KnownVectors(semantic_router.encoders.DenseEncoder):  # type: ignore[misc]
    """Looks vectors up."""

    name: str = "known-vectors"
    vectors: dict[str, Any] = {}  # noqa: RUF012 (a field of pydantic's)

    def __call__(self, docs: list[str]) -> list[Any]:
        """The vectors of texts."""
        return [self.vectors[text] for text in docs]

    async def acall(self, docs: list[str]) -> list[Any]:
        """The same without a thread."""
        return self(docs)


async def answer(trial: dict[str, Any], encoder: KnownVectors) -> dict[str, list[Any]]:
    """Its route and score to each question of a trial."""
    router = semantic_router.IndexedRouter(
        encoder=encoder,
        routes=[semantic_router.Route(name=name, utterances=told)
                for name, told in trial["cards"].items()],
        index=semantic_router.index.LocalIndex(),
        top_k=5,
        aggregation="mean",
    )  # fmt: skip
    choices = [await router.acall(text) for text in trial["asked"]]
    return {
        "first": [choice.name or "" for choice in choices],
        "score": [choice.confidence or 0.0 for choice in choices],
    }


def main(folder: pathlib.Path) -> None:
    """Does the work that lies in the folder."""
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    vectors = np.load(folder / "vectors.npy")
    encoder = KnownVectors()
    encoder.vectors = dict(zip(work["texts"], vectors, strict=True))
    found = {
        "version": importlib.metadata.version("semantic-router"),
        "trials": [asyncio.run(answer(trial, encoder)) for trial in work["trials"]],
    }
    (folder / "answers.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
