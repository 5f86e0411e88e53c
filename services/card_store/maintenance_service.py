"""Translates the protobuf of `maintenance.proto` to and from `Maintenance`; decides nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from services.card_store import maintenance, store, view
from shared import errors
from shared.pb import maintenance_pb2, maintenance_pb2_grpc
from shared.rpc import access
from shared.security import callers


class MaintenanceService(maintenance_pb2_grpc.StoreMaintenanceServicer):
    """The servicer of a store's upkeep."""

    def __init__(
        self,
        upkeep: maintenance.Maintenance,
        card_store: store.CardStore,
        admitted: callers.Callers,
    ) -> None:
        """Takes the upkeep, its store, and who may call."""
        self._upkeep, self._store, self._admitted = upkeep, card_store, admitted

    def _check_may(self, context: Any) -> None:
        """Refuses callers who are there for some tenants alone."""
        caller = access.caller_of(self._admitted, context.invocation_metadata())
        view.View(self._store, caller).check_sees_all("looks after the cards of every tenant")

    async def ApplyRetention(
        self, request: maintenance_pb2.ApplyRetentionRequest, context: Any
    ) -> maintenance_pb2.ApplyRetentionResponse:
        """Deletes what the policy no longer keeps."""
        self._check_may(context)
        gone = await self._upkeep.apply_retention(request.dry_run)
        return maintenance_pb2.ApplyRetentionResponse(cards=gone.cards, datasets=gone.datasets)

    async def CollectGarbage(
        self, request: maintenance_pb2.CollectGarbageRequest, context: Any
    ) -> maintenance_pb2.CollectGarbageResponse:
        """Removes files that no record needs."""
        self._check_may(context)
        gone = await self._upkeep.collect_garbage(request.dry_run)
        return maintenance_pb2.CollectGarbageResponse(digests=gone.digests, bytes=gone.size_bytes)

    async def CompactLog(
        self, request: maintenance_pb2.CompactLogRequest, context: Any
    ) -> maintenance_pb2.CompactLogResponse:
        """Drops old lines of the log."""
        self._check_may(context)
        if request.keep_lines < 0:
            raise errors.InvalidInputError(f"keep_lines {request.keep_lines} is negative")
        oldest = await self._store.compact(request.keep_lines)
        return maintenance_pb2.CompactLogResponse(oldest_revision=oldest)

    async def Verify(
        self, request: maintenance_pb2.VerifyRequest, context: Any
    ) -> AsyncIterator[maintenance_pb2.VerifyProgress]:
        """Streams what a look at every file finds."""
        self._check_may(context)
        async with contextlib.aclosing(self._upkeep.verify()) as inspections:
            async for seen in inspections:
                yield maintenance_pb2.VerifyProgress(
                    checked=seen.checked,
                    total=seen.total,
                    bytes=seen.size_bytes,
                    digest=seen.digest,
                    fault=seen.fault,
                )
