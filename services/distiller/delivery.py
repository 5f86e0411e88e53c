"""From a distillation to a ticket: its dataset is put into the card store's data plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

from services.distiller import distillation
from shared.flight import datasets
from shared.rpc import runs

_UPLOADING = 0.97


@dataclasses.dataclass(frozen=True)
class Delivered:
    """A distillation whose dataset lies in the card store; the factory commits it."""

    result: distillation.Distillation
    digest: str
    size_bytes: int


class Distils(Protocol):
    """Makes distillations, see `distiller.CloudDistiller`."""

    async def distil(
        self, request: distillation.DistilRequest, progress: distillation.ProgressCallback
    ) -> distillation.Distillation:
        """Makes the facts of one skill."""
        ...


class Delivery:
    """Distils and uploads."""

    def __init__(self, distiller: Distils, upload: Callable[[bytes], Awaitable[str]]) -> None:
        """Takes whoever makes distillations and whoever stores datasets.

        Args:
            distiller: is asked once for each run; remembers finished tasks by itself.
            upload: puts a dataset's bytes into the card store and returns their digest.
        """
        self._distiller = distiller
        self._upload = upload

    async def work(self, request: distillation.DistilRequest, report: runs.Report) -> Delivered:
        """Makes the facts and delivers them."""
        result = await self._distiller.distil(request, report)
        await report(_UPLOADING, "uploading the dataset")
        data = datasets.to_bytes(result.pairs)
        return Delivered(result, await self._upload(data), len(data))
