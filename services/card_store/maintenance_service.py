"""Translates the protobuf of `maintenance.proto` to and from `Maintenance`; decides nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from services.card_store import maintenance, store
from shared import errors
from shared.pb import maintenance_pb2, maintenance_pb2_grpc


class MaintenanceService(maintenance_pb2_grpc.StoreMaintenanceServicer):
    """The servicer of a store's upkeep."""

    def __init__(self, upkeep: maintenance.Maintenance, card_store: store.CardStore) -> None:
        """Takes the upkeep and its store."""
        self._upkeep, self._store = upkeep, card_store

    async def ApplyRetention(
        self, request: maintenance_pb2.ApplyRetentionRequest, context: Any
    ) -> maintenance_pb2.ApplyRetentionResponse:
        """Deletes what the policy no longer keeps."""
        gone = await self._upkeep.apply_retention(request.dry_run)
        return maintenance_pb2.ApplyRetentionResponse(cards=gone.cards, datasets=gone.datasets)

    async def CollectGarbage(
        self, request: maintenance_pb2.CollectGarbageRequest, context: Any
    ) -> maintenance_pb2.CollectGarbageResponse:
        """Removes files that no record needs."""
        gone = await self._upkeep.collect_garbage(request.dry_run)
        return maintenance_pb2.CollectGarbageResponse(digests=gone.digests, bytes=gone.size_bytes)

    async def CompactLog(
        self, request: maintenance_pb2.CompactLogRequest, context: Any
    ) -> maintenance_pb2.CompactLogResponse:
        """Drops old lines of the log."""
        if request.keep_lines < 0:
            raise errors.InvalidInputError(f"keep_lines {request.keep_lines} is negative")
        oldest = await self._store.compact(request.keep_lines)
        return maintenance_pb2.CompactLogResponse(oldest_revision=oldest)

    async def Verify(
        self, request: maintenance_pb2.VerifyRequest, context: Any
    ) -> AsyncIterator[maintenance_pb2.VerifyProgress]:
        """Streams what a look at every file finds."""
        async with contextlib.aclosing(self._upkeep.verify()) as inspections:
            async for seen in inspections:
                yield maintenance_pb2.VerifyProgress(
                    checked=seen.checked,
                    total=seen.total,
                    bytes=seen.size_bytes,
                    digest=seen.digest,
                    fault=seen.fault,
                )
