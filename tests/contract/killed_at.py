"""Runs a process of the card store that kills itself, as `kill -9` would, at one exact point.

    python -m tests.contract.killed_at FILE MODULE --config CONFIG

It dies when it reaches the stage that FILE names, and goes on for ever while there is no such
file. The code that runs is the real one: only what it calls outside of this project (renames,
writing through to the disk, hashing, the database's driver) is wrapped.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
import runpy
import signal
import sys
import threading
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.engine import default

from shared.flight import client as flight_client

MODULE = "tests.contract.killed_at"


class Killer:
    """Kills this process at the stage that a file names."""

    def __init__(self, armed: pathlib.Path) -> None:
        self._armed = armed

    def waits_for(self, stage: str) -> bool:
        return self._armed.is_file() and self._armed.read_text() == stage

    def reached(self, stage: str) -> None:
        if self.waits_for(stage):
            os.kill(os.getpid(), signal.SIGKILL)

    def watch_chunks(self) -> None:
        """`second-chunk` of an upload arrived and is not written yet."""
        real, reached = hashlib.sha256, self.reached

        class Hasher:
            def __init__(self) -> None:
                self._hasher, self._chunks = real(), 0

            def update(self, chunk: memoryview) -> None:
                self._chunks += len(chunk) == flight_client.CHUNK_BYTES
                if self._chunks == 2:
                    reached("second-chunk")
                self._hasher.update(chunk)

            def hexdigest(self) -> str:
                return self._hasher.hexdigest()

        hashlib.sha256 = Hasher  # type: ignore[assignment, misc]

    def watch_files(self) -> None:
        """`part-complete`, then `before-FOLDER` and `in-FOLDER` for every rename."""
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".part"):
                self.reached("part-complete")
            real_fsync(descriptor)

        def replace(source: Any, target: Any) -> None:
            folder = pathlib.Path(target).parent.name
            self.reached(f"before-{folder}")
            real_replace(source, target)
            self.reached(f"in-{folder}")

        os.fsync, os.replace = fsync, replace  # type: ignore[assignment]

    def watch_database(self) -> None:
        """`TABLE-inserted`, `before-TABLE-committed` and `TABLE-committed`."""
        real, transaction = default.DefaultDialect.do_commit, threading.local()

        def executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
            if found := re.match(r"INSERT INTO (\w+)", statement):
                transaction.tables = {*getattr(transaction, "tables", ()), found[1]}
                self.reached(f"{found[1]}-inserted")

        def do_commit(dialect: Any, connection: Any) -> None:
            tables, transaction.tables = getattr(transaction, "tables", ()), ()
            for table in tables:
                self.reached(f"before-{table}-committed")
            real(dialect, connection)
            for table in tables:
                self.reached(f"{table}-committed")

        sa.event.listen(sa.Engine, "after_cursor_execute", executed)
        default.DefaultDialect.do_commit = do_commit  # type: ignore[method-assign]

    def watch_sending(self) -> None:
        """`third-message` of a download is to be sent."""
        real, made = pa.record_batch, 0

        def record_batch(*arguments: Any, **named: Any) -> pa.RecordBatch:
            nonlocal made
            made += self.waits_for("third-message")
            if made == 3:
                self.reached("third-message")
            return real(*arguments, **named)

        pa.record_batch = record_batch


if __name__ == "__main__":
    armed, module = sys.argv[1:3]
    killer = Killer(pathlib.Path(armed))
    killer.watch_chunks()
    killer.watch_files()
    killer.watch_database()
    killer.watch_sending()
    sys.argv[1:3] = []
    runpy.run_module(module, run_name="__main__", alter_sys=True)
