"""`LoRAFlightClient`: puts and gets cards, datasets and snapshots by ticket over Arrow Flight.

Files travel as they are, in chunks, so that what arrives has the very digest that was asked for,
whatever version of Arrow either side runs. Whoever wants a table instead (any Flight client can)
asks for the ticket without `raw`. Calls block: use a thread.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import Literal

import pyarrow as pa
import pyarrow.flight

from shared import errors
from shared.security import callers
from shared.security import protection as protections
from shared.telemetry import tracing

Kind = Literal["card", "dataset", "samples", "snapshot", "submission"]

CHUNK_BYTES = 1024 * 1024
RAW_SCHEMA = pa.schema([pa.field("chunk", pa.large_binary(), nullable=False)])
_TIMEOUT_S = 60.0
_OFFSETS = struct.Struct("<qq")


class LoRAFlightClient:
    """One connection to a store's data plane."""

    def __init__(self, address: str, protection: protections.Protection = protections.OPEN) -> None:
        """Takes `host:port`, the token to show, and whose certificates are believed.

        Connects on first use.
        """
        self._address = address
        scheme = "grpc+tls" if protection.encrypts_calls else "grpc"
        self._client = pyarrow.flight.FlightClient(
            f"{scheme}://{address}", **protection.flight_client_options()
        )
        token = protection.token
        self._headers = [(b"authorization", callers.header(token).encode())] if token else []

    def put(self, kind: Kind, data: bytes, **about: str | int) -> str:
        """Uploads a file's bytes; nothing is listed until they are committed.

        Args:
            kind: of file.
            data: the file.
            about: what else the data plane must know of it.

        Returns:
            The digest, SHA-256 in lower-case hex.

        Raises:
            errors.SkillmeshError: the store refused the upload or can't be reached.
        """
        digest = hashlib.sha256(data).hexdigest()
        chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        size = {"digest": digest, "size_bytes": len(data), "batches": len(chunks)}
        command = {"kind": kind, **size, **about}
        descriptor = pyarrow.flight.FlightDescriptor.for_command(json.dumps(command))
        with _typed(self._address):
            writer, _ = self._client.do_put(descriptor, RAW_SCHEMA, self._options_for(_TIMEOUT_S))
            with writer:
                for chunk in chunks:
                    writer.write_batch(
                        pa.record_batch([pa.array([chunk], pa.large_binary())], schema=RAW_SCHEMA)
                    )
                writer.done_writing()
        return digest

    def get(self, digest: str) -> bytes:
        """Fetches a file's bytes and checks them against the digest.

        Raises:
            errors.NotFoundError: the store does not have it.
            errors.IntegrityError: what arrived has another digest.
            errors.UnavailableError: the store can't be reached.
        """
        with _Hashing() as hashing:
            data = b"".join([hashing.add(chunk) for chunk in self.chunks(digest)])
            _check(hashing.digest(), digest, self._address)
        return data

    def fetch_skill(self, digest: str, path: pathlib.Path) -> None:
        """Fetches a card into a file, which appears only once its digest was checked."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            _Hashing() as hashing,
            tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file,
        ):
            try:
                for chunk in self.chunks(digest):
                    file.write(hashing.add(chunk))
                file.flush()
                os.fsync(file.fileno())
                _check(hashing.digest(), digest, self._address)
                os.replace(file.name, path)
            except BaseException:
                pathlib.Path(file.name).unlink(missing_ok=True)
                raise

    def list_remote_skills(self) -> list[dict[str, object]]:
        """Name, digest, version and size of every card that the store lists."""
        with _typed(self._address):
            return [
                json.loads(info.descriptor.command)
                for info in self._client.list_flights(options=self._options_for(_TIMEOUT_S))
            ]

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def chunks(
        self, digest: str, timeout_s: float = _TIMEOUT_S, silence_s: float = _TIMEOUT_S
    ) -> Iterator[pa.Buffer]:
        """A file's bytes piece by piece, not checked yet: whoever keeps them checks the digest.

        Args:
            digest: of the file.
            timeout_s: for all of it, the time that the pieces are not asked for included.
            silence_s: how long a piece may be waited for.
        """
        ticket = pyarrow.flight.Ticket(json.dumps({"digest": digest, "raw": True}))
        with _typed(self._address):
            reader = self._client.do_get(ticket, self._options_for(timeout_s))
            if not reader.schema.equals(RAW_SCHEMA):
                raise errors.InvalidInputError(f"{self._address} sent something else than a file")
            while (message := self._next(reader, silence_s)) is not None:
                yield chunk_of(message.data)

    def _next(
        self, reader: pyarrow.flight.FlightStreamReader, silence_s: float
    ) -> pyarrow.flight.FlightStreamChunk | None:
        """The next message; None at the end."""
        # Pings would not do: Flight servers take those of a client that waits for an attack.
        watchdog = threading.Timer(silence_s, reader.cancel)
        watchdog.daemon = True
        watchdog.start()
        try:
            return reader.read_chunk()
        except StopIteration:
            return None
        except pyarrow.flight.FlightCancelledError as error:
            raise errors.UnavailableError(
                f"the data plane at {self._address} was silent for {silence_s:g} s"
            ) from error
        finally:
            watchdog.cancel()

    def _options_for(self, timeout_s: float) -> pyarrow.flight.FlightCallOptions:
        traced = tracing.traceparent()
        own = [(tracing.HEADER.encode(), traced.encode())] if traced else []
        return pyarrow.flight.FlightCallOptions(timeout=timeout_s, headers=[*self._headers, *own])


def chunk_of(batch: pa.RecordBatch | None) -> pa.Buffer:
    """The bytes that a batch from the other side carries: not copied, and nothing is trusted.

    Args:
        batch: of `RAW_SCHEMA`, as it arrived; None where only metadata did.

    Raises:
        errors.InvalidInputError: it holds not one chunk, or is malformed, or was compressed.
    """
    if batch is None or batch.num_rows != 1:
        raise errors.InvalidInputError("expected one chunk in every batch")
    try:
        # A batch with bad offsets crashes the process that trusts it.
        batch.validate(full=True)
    except pa.ArrowException as error:
        raise errors.InvalidInputError(f"malformed batch: {error}") from error
    column = batch.column(0)
    if column.null_count:
        raise errors.InvalidInputError("a chunk is null")
    _, offsets, values = column.buffers()
    if values is None or not values.size:
        return pa.py_buffer(b"")
    # What was sent as it is lies in the received message, which is immutable; what had to be
    # unpacked lies in memory of its own.
    if values.is_mutable:
        raise errors.InvalidInputError("compressed chunks are refused")
    # Not by Arrow's scalar, which copies: where there is no memory for that, C++ throws through
    # Python's frames, and what they hold is never let go.
    start, end = _OFFSETS.unpack_from(offsets, column.offset * 8)
    return values.slice(start, end - start)


class _Hashing:
    """SHA-256 of chunks in a thread of its own, while the next ones are on their way."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "hashing")
        self._done: list[concurrent.futures.Future[None]] = []

    def __enter__(self) -> _Hashing:
        return self

    def __exit__(self, *unused: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, chunk: pa.Buffer) -> pa.Buffer:
        self._done.append(self._thread.submit(self._hasher.update, chunk))
        return chunk

    def digest(self) -> str:
        for done in self._done:
            done.result()
        return self._hasher.hexdigest()


def _check(found: str, expected: str, address: str) -> None:
    if found != expected:
        raise errors.IntegrityError(
            f"what {address} sent has SHA-256 {found}, expected {expected}; fetch it again"
        )


class _typed:
    """Turns Flight's errors into those of `shared.errors`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, pa.ArrowException):
            return
        text = str(error).split(". Detail:")[0].split(" gRPC client debug")[0]
        if protections.is_refused_certificate(str(error)):
            raise protections.refused_certificate(text) from error
        if isinstance(error, pyarrow.flight.FlightUnauthenticatedError):
            raise errors.UnauthenticatedError(text) from error
        if isinstance(error, pyarrow.flight.FlightUnauthorizedError):
            raise errors.ForbiddenError(text) from error
        told = (getattr(error, "extra_info", b"") or b"").decode(errors="replace")
        if told and (found := errors.named(told, text)) is not None:
            raise found from error
        if isinstance(error, pyarrow.flight.FlightUnavailableError):
            raise errors.UnavailableError(
                f"the data plane at {self._address} can't be reached: {text}"
            ) from error
        if isinstance(error, pyarrow.flight.FlightTimedOutError):
            raise errors.DeadlineError(f"{self._address}: {text}") from error
        if isinstance(error, KeyError | pa.ArrowKeyError):
            raise errors.NotFoundError(text) from error
        if isinstance(error, pa.ArrowInvalid):
            raise errors.InvalidInputError(text) from error
        raise errors.InternalError(f"{self._address}: {text}") from error
