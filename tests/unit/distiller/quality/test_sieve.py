"""What the checks leave to others while they work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from services.distiller import vectors
from services.distiller.quality import agreement, mixing, sieve, verdict
from shared import settings as config
from shared.flight import datasets
from tests.unit.distiller import fakes


@pytest.mark.parametrize(
    ("module", "check"),
    [(agreement, "unrepeated"), (agreement, "consistent"), (mixing, "unmixed")],
)
async def test_others_are_served_while_pairs_are_compared(
    monkeypatch: pytest.MonkeyPatch, module: object, check: str
) -> None:
    served, comparing = threading.Event(), threading.Event()
    in_time: list[bool] = []

    def compare(pairs: Sequence[datasets.QAPair], *rest: object) -> verdict.Sifted:
        comparing.set()
        in_time.append(served.wait(60))
        return verdict.Sifted(tuple(pairs))

    async def serve() -> None:
        while not comparing.is_set():
            await asyncio.sleep(0.001)
        served.set()

    async def embed(texts: Sequence[str]) -> vectors.Vectors:
        return np.eye(len(texts), 8, dtype=np.float32)

    async def ask(call: object) -> list[datasets.QAPair]:
        raise AssertionError("nobody judges")

    monkeypatch.setattr(module, check, compare)
    sieving = sieve.Sieve(config.Distiller(judge="none"), embed)
    pairs = [fakes.pair("How long is the bridge?", "412 m")]
    other = asyncio.create_task(serve())
    sifted = await sieving.sift(pairs, ["How long is it?"], set(), ask, fakes.Teacher([]))
    await other
    assert (in_time, len(sifted.kept)) == ([True], 1)
