"""The Flight server that every data plane is: access, error mapping, files in raw chunks.

Knows nothing about what the files are; whoever derives from it does.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight
import structlog

from shared import errors
from shared.flight import access, commands, transfers
from shared.flight import client as flight_client
from shared.security import protection as protections

_log = structlog.get_logger(__name__)
_GRACE_S = 3.0
_SENT_BYTES = 4 * 1024 * 1024
"""Of one message: smaller ones take a third longer, larger ones gain nothing."""


class FlightServer(pyarrow.flight.FlightServerBase):  # type: ignore[misc]
    """Listens once constructed, in threads of its own."""

    def __init__(
        self, address: str, key: str, service: str, protection: protections.Protection
    ) -> None:
        """Binds and serves; what calls need must be set before.

        Args:
            address: `host:port`; port 0 takes a free one, see `port`.
            key: of config.yaml that holds the address.
            service: under which `shared.security.callers` lists what roles may do.
            protection: its certificate, and who may call.

        Raises:
            errors.ConfigError: the port is taken.
        """
        self.host = address.rpartition(":")[0]
        self.protection = protection
        self._stopping = threading.Event()
        # Looked at before anything of an upload is read.
        self.transfers = transfers.Transfers()
        """What it transferred, for `telemetry.metrics`."""
        admission = access.AccessMiddlewareFactory(protection.admitted, service)
        try:
            super().__init__(
                f"{'grpc+tls' if protection.encrypts_serving else 'grpc'}://{address}",
                middleware={access.MIDDLEWARE: admission, transfers.MIDDLEWARE: self.transfers},
                **protection.flight_server_options(),
            )
        except (pa.ArrowException, OSError) as error:
            raise errors.ConfigError(
                f"can't listen on {address} ({key}): {error}; the port may be taken, choose "
                "another in config.yaml or stop the other process"
            ) from error

    def stop(self) -> None:
        """Ends the transfers under way at their next chunk, then the server; blocks."""
        self._stopping.set()
        self.shutdown()

    def check_running(self) -> None:
        """Ends a transfer while the server stops.

        Raises:
            errors.UnavailableError: it stops.
        """
        if self._stopping.is_set():
            raise errors.UnavailableError("this data plane stops; try again")

    def received(
        self, reader: pyarrow.flight.MetadataRecordBatchReader, upload: commands.Upload
    ) -> Iterator[memoryview]:
        """The chunks of an upload, each checked.

        Raises:
            errors.InvalidInputError: the stream holds something else than chunks.
            errors.IntegrityError: one is missing or too many.
        """
        if not reader.schema.equals(flight_client.RAW_SCHEMA):
            raise errors.InvalidInputError(
                f"upload {upload.digest}: expected one column, chunk: large_binary not null"
            )
        return self._received(reader, upload)

    def _received(
        self, reader: pyarrow.flight.MetadataRecordBatchReader, upload: commands.Upload
    ) -> Iterator[memoryview]:
        count = 0
        while True:
            self.check_running()
            try:
                batch = reader.read_chunk().data
            except StopIteration:
                break
            except (pa.ArrowException, OSError) as error:
                raise errors.IntegrityError(
                    f"upload {upload.digest}: broke off after {count} batches: {error}"
                ) from error
            count += 1
            chunk = _chunk(batch, upload.digest)
            self.transfers.came(chunk.nbytes)
            yield chunk
        # A client killed half way looks like a normal end of stream: only the count tells.
        if count != upload.batches:
            raise errors.IntegrityError(
                f"upload {upload.digest}: {count} batches arrived, {upload.batches} were "
                "announced; send it again"
            )

    def sent(self, source: pa.NativeFile) -> pyarrow.flight.GeneratorStream:
        """A file's own bytes in chunks; it is closed at their end."""
        return pyarrow.flight.GeneratorStream(flight_client.RAW_SCHEMA, self._chunks(source))

    def _chunks(self, opened: pa.NativeFile) -> Iterator[pa.RecordBatch]:
        with flight_errors("do_get"), opened as source:
            while (piece := source.read_buffer(_SENT_BYTES)).size:
                self.check_running()
                self.transfers.went(piece.size)
                offsets = pa.array([0, piece.size], pa.int64()).buffers()[1]
                # Built from buffers, so that the mapped bytes go out without a copy.
                column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, piece])
                yield pa.record_batch([column], schema=flight_client.RAW_SCHEMA)

    def sent_table(self, table: pa.Table) -> pyarrow.flight.GeneratorStream:
        """A table, in batches of about the size of a chunk."""
        return pyarrow.flight.GeneratorStream(table.schema, self._batches(table))

    def _batches(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        rows = max(1, table.num_rows * _SENT_BYTES // max(1, table.nbytes))
        with flight_errors("do_get"):
            for batch in table.to_batches(max_chunksize=rows):
                self.check_running()
                self.transfers.went(batch.nbytes)
                yield batch


def _chunk(batch: pa.RecordBatch | None, digest: str) -> memoryview:
    """The bytes of one uploaded batch, which nobody has checked yet."""
    try:
        return memoryview(flight_client.chunk_of(batch))
    except errors.InvalidInputError as error:
        raise errors.InvalidInputError(f"upload {digest}: {error}") from error


@contextlib.contextmanager
def flight_errors(call: str) -> Iterator[None]:
    """Turns the errors of this project into those that Flight carries to the client.

    Args:
        call: the method, for the log.
    """
    try:
        yield
    except errors.SkillmeshError as error:
        reason, kind = errors.brief(str(error)), type(error).__name__
        _log.info("call refused", method=call, kind=kind, reason=reason)
        if isinstance(error, errors.NotFoundError):
            raise pa.ArrowKeyError(reason) from error
        if isinstance(error, errors.InvalidInputError | errors.IntegrityError):
            raise pa.ArrowInvalid(reason) from error
        # Beside the message, the name that tells the client which error it was.
        if isinstance(error, errors.ForbiddenError):
            raise pyarrow.flight.FlightUnauthorizedError(reason, kind.encode()) from error
        if error.retryable:
            raise pyarrow.flight.FlightUnavailableError(reason, kind.encode()) from error
        raise pyarrow.flight.FlightServerError(reason, kind.encode()) from error


def exit_soon() -> None:
    """Has the process end within seconds, whatever its calls do, for use after its signal.

    A server's `shutdown` waits for every call, and one whose client neither reads nor leaves never
    ends.
    """
    watchdog = threading.Timer(_GRACE_S, os._exit, (0,))
    watchdog.daemon = True
    watchdog.start()
