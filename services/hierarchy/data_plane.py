"""The hierarchy's data plane: submissions come in, snapshots go out, by ticket.

Threads of the service's own process. Interprets no weights: `Coordinator` does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.flight
import pydantic

from services.hierarchy import coordinator, members
from shared import errors
from shared.flight import access, commands
from shared.flight import server as flight_server
from shared.security import protection as protections

_KEY = "hierarchy.limits.submission_mib"


class PutCommand(commands.Upload):
    """Announces a submission."""

    kind: Literal["submission"]
    agent: Annotated[str, pydantic.Field(min_length=1, max_length=64)]
    sequence: Annotated[int, pydantic.Field(ge=1, lt=2**53)]


class HierarchyFlightServer(flight_server.FlightServer):
    """Submissions and snapshots over Arrow Flight; listens once constructed."""

    def __init__(
        self,
        address: str,
        coordinated: coordinator.Coordinator,
        largest_bytes: int,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Binds and serves in threads of its own.

        Args:
            address: `host:port`; port 0 takes a free one, see `port`.
            coordinated: takes submissions and has snapshots.
            largest_bytes: larger submissions are refused.
            protection: its certificate, and who may call.

        Raises:
            errors.ConfigError: the port is taken.
        """
        # Calls may arrive before the base class returns.
        self._coordinator, self._largest_bytes = coordinated, largest_bytes
        super().__init__(address, "hierarchy.flight_address", access.HIERARCHY, protection)

    def do_put(
        self,
        context: pyarrow.flight.ServerCallContext,
        descriptor: pyarrow.flight.FlightDescriptor,
        reader: pyarrow.flight.MetadataRecordBatchReader,
        writer: pyarrow.flight.FlightMetadataWriter,
    ) -> None:
        """Takes one submission; when this returns it is on disk. The same one again is nothing."""
        with flight_server.flight_errors("do_put"):
            example: dict[str, object] = {"kind": "submission", "agent": "NAME", "sequence": 1}
            put = commands.parse_upload(
                PutCommand, descriptor.command, self._largest_bytes, _KEY, example
            )
            chunks = self.received(reader, put)
            try:
                self._coordinator.submit(
                    put.agent,
                    members.owner_of(access.caller_of(context)),
                    put.sequence,
                    put.size_bytes,
                    lambda: _whole(chunks, put.digest, put.size_bytes),
                )
            except errors.IntegrityError as error:
                # What broke off on its way is whole when it is sent again.
                raise errors.UnavailableError(str(error)) from error

    def do_get(
        self, context: pyarrow.flight.ServerCallContext, ticket: pyarrow.flight.Ticket
    ) -> pyarrow.flight.FlightDataStream:
        """Sends a snapshot: its file's bytes in chunks, or the table that it holds."""
        with flight_server.flight_errors("do_get"):
            wanted = commands.parse_get(ticket.ticket)
            opened = pa.memory_map(str(self._coordinator.snapshot_file(wanted.digest)))
            if wanted.raw:
                return self.sent(opened)
            return self.sent_table(pa.ipc.open_file(opened).read_all())


def _whole(chunks: Iterable[memoryview], digest: str, size_bytes: int) -> bytes:
    """An upload as a whole, checked.

    Raises:
        errors.IntegrityError: it has another size or digest than announced.
    """
    data, hasher = bytearray(), hashlib.sha256()
    for chunk in chunks:
        if len(data) + len(chunk) > size_bytes:
            raise errors.IntegrityError(f"upload {digest}: more than {size_bytes} bytes arrived")
        data += chunk
        hasher.update(chunk)
    if len(data) != size_bytes or hasher.hexdigest() != digest:
        raise errors.IntegrityError(
            f"upload {digest}: {len(data)} bytes with SHA-256 {hasher.hexdigest()} arrived, "
            f"{size_bytes} were announced; send it again"
        )
    return bytes(data)
