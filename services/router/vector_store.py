"""Vectors of the texts that cards bring, kept on disk from one start of the router to the next.

Stands between the embedder and whoever registers cards: what comes with the program (`shipped`) is
taken, what was embedded before is read, the rest is embedded and kept. The file is only a memory.
Where it is lost, damaged or can't be written, texts are embedded again and the log says so. Knows
nothing about cards or about embedding.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import hashlib
import pathlib
import sqlite3
import types
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import structlog

Vectors = npt.NDArray[np.float32]
Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""Texts to vectors of shape (texts, dimension)."""
Halves = npt.NDArray[np.float16]
MOST_TEXTS = 1_000_000
"""About 1.1 GB on disk."""
_AT_ONCE = 1_024
"""Texts: so many are embedded again at most after the process was killed."""
_KEPT_UNUSED_DAYS = 30
_USE_NOTED_DAYS = 7
"""Reading is noted no more often than that: each note writes a page."""
_CHECK_BYTES = 4
_SCHEMA = """
CREATE TABLE IF NOT EXISTS vectors
(key BLOB PRIMARY KEY, used INTEGER NOT NULL, vector BLOB NOT NULL)
"""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_log = structlog.get_logger(__name__)


def key_of(vectors_id: str, text: str) -> bytes:
    """By which the vector of a text is found: 32 bytes.

    Args:
        vectors_id: of the embedder.
        text: any, half a surrogate pair included.
    """
    encoded = text.encode(errors="surrogatepass")
    return hashlib.sha256(vectors_id.encode() + b"\0" + encoded).digest()


def _today() -> int:
    return datetime.datetime.now(datetime.UTC).date().toordinal()


class VectorStore:
    """An embedder that remembers."""

    def __init__(
        self,
        path: pathlib.Path,
        vectors_id: str,
        embed: Embed,
        most_texts: int = MOST_TEXTS,
        today: Callable[[], int] = _today,
        shipped: Mapping[bytes, Halves] = types.MappingProxyType({}),
    ) -> None:
        """Prepares; the file is opened when it is first needed.

        Args:
            path: of the file, which one process has to itself.
            vectors_id: tells the embedder's vectors from those of any other, which may lie in the
                same file and are never read.
            embed: the embedder.
            most_texts: how many are kept; what was not used for longest goes first.
            today: the number of the day.
            shipped: vectors that are known without the file, by `key`.
        """
        self._vectors_id = vectors_id
        self._shipped = shipped
        self._embed = embed
        self._file = _File(path, most_texts, today)
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="vectors")

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, shape (texts, dimension), the same whether they were kept or made.

        They are rounded to half precision, which moves their cosines by less than 1e-6.
        """
        if not texts:
            return await self._embed(texts)
        parts = range(0, len(texts), _AT_ONCE)
        return np.concatenate([await self._part(texts[at : at + _AT_ONCE]) for at in parts])

    async def close(self) -> None:
        """Forgets what was not used for a month and closes the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown()

    async def _part(self, texts: Sequence[str]) -> Vectors:
        loop = asyncio.get_running_loop()
        keys = [key_of(self._vectors_id, text) for text in texts]
        known = {key: self._shipped[key] for key in keys if key in self._shipped}
        asked = [key for key in keys if key not in known]
        if asked:
            known |= await loop.run_in_executor(self._thread, self._file.read, asked)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors_N_D = await self._embed(list(new.values()))
            made = dict(zip(new, vectors_N_D.astype(np.float16), strict=True))
            # What is no number may be one the next time.
            sound = {key: vector for key, vector in made.items() if np.isfinite(vector).all()}
            await loop.run_in_executor(self._thread, self._file.write, sound)
            known |= made
        return np.stack([known[key] for key in keys]).astype(np.float32)


class _File:
    """The SQLite file; what goes wrong with it costs what it holds and is never raised."""

    def __init__(self, path: pathlib.Path, most_texts: int, today: Callable[[], int]) -> None:
        self._path = path
        self._most_texts = most_texts
        self._today = today
        self._started = today()
        self._open: sqlite3.Connection | None = None
        self._is_failing = False

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Halves]:
        """The vectors that are kept, by key."""
        found, today = dict[bytes, Halves](), self._today()

        def read(connection: sqlite3.Connection) -> None:
            marks = ",".join("?" * len(keys))
            rows = connection.execute(
                f"SELECT key, used, vector FROM vectors WHERE key IN ({marks})", keys
            )
            noted = []
            for key, used, kept in rows.fetchall():
                vector = kept[:-_CHECK_BYTES]
                if kept[-_CHECK_BYTES:] == _check(key, vector):
                    found[key] = np.frombuffer(vector, dtype="<f2")
                    if used < today - _USE_NOTED_DAYS:
                        noted.append((today, key))
            connection.executemany("UPDATE vectors SET used = ? WHERE key = ?", noted)

        self._try(read)
        return found

    def write(self, vectors: Mapping[bytes, Halves]) -> None:
        """Keeps vectors; beyond the bound a tenth of all goes, the longest unused first."""
        today = self._today()
        encoded = {key: vector.astype("<f2").tobytes() for key, vector in vectors.items()}

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
                [(key, today, vector + _check(key, vector)) for key, vector in encoded.items()],
            )
            (count,) = connection.execute("SELECT count(*) FROM vectors").fetchone()
            if count > self._most_texts:
                connection.execute(
                    "DELETE FROM vectors WHERE rowid IN "
                    "(SELECT rowid FROM vectors ORDER BY used, rowid LIMIT ?)",
                    (count - self._most_texts + self._most_texts // 10,),
                )

        self._try(write)

    def close(self) -> None:
        """Drops what this process did not use, nor any in the month before it."""
        oldest = self._started - _KEPT_UNUSED_DAYS
        self._try(lambda file: file.execute("DELETE FROM vectors WHERE used < ?", (oldest,)))
        self._close()

    def _try(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Does something in one transaction; after a failure the file is opened anew."""
        try:
            if self._open is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._open = sqlite3.connect(self._path)
                # A killed process leaves whole transactions, and nobody waits for the disk.
                self._open.execute("PRAGMA journal_mode = WAL")
                self._open.execute("PRAGMA synchronous = NORMAL")
                self._open.execute(_SCHEMA)
            with self._open:
                work(self._open)
            self._is_failing = False
        except (sqlite3.Error, OSError) as error:
            self._close()
            # The primary code is the lowest byte of an extended one.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
                _log.warning("damaged vectors discarded", path=str(self._path), reason=str(error))
                with contextlib.suppress(OSError):
                    for suffix in ("", "-wal", "-shm"):
                        pathlib.Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            elif not self._is_failing:
                _log.warning("vectors are not kept", path=str(self._path), reason=str(error))
                self._is_failing = True

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(sqlite3.Error):
                self._open.close()
            self._open = None


def _check(key: bytes, vector: bytes) -> bytes:
    """Tells bits that turned, which SQLite does not notice."""
    return zlib.crc32(key + vector).to_bytes(_CHECK_BYTES, "little")
