"""Loads card files in a process of its own, so that a crash, a hang or a GB of memory is seen.

The process (`python -m tests.unit.cards.measured_loading`) reads paths from standard input and
answers each with a line of JSON. Its peak is counted from zero for every file. What the kernel
counts includes the file's own mapped pages, so tests keep files well below the limit.
"""

from __future__ import annotations

import ctypes
import dataclasses
import faulthandler
import json
import pathlib
import subprocess
import sys

import pyarrow as pa

from shared import errors
from shared.cards import format as formats

LONGEST_S = 20.0
_KIB = 1024


@dataclasses.dataclass(frozen=True)
class Loading:
    """What came of one file."""

    outcome: str
    """`card`, or the name of the error's class."""
    message: str
    peak_bytes: int
    """Memory beyond what the process had before, at the worst moment."""


class Loader:
    """The process, started when it is needed and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def load(self, path: pathlib.Path) -> Loading:
        """Raises AssertionError if the process crashed, or was stopped after `LONGEST_S`."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                cwd=pathlib.Path(__file__).parents[3],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            code = self.close()
            raise AssertionError(f"the process crashed or hung on {path}: exit code {code}")
        return Loading(**json.loads(answer))

    def close(self) -> int:
        """Ends the process; its exit code."""
        if self._process is None:
            return 0
        with self._process as process:
            self._process = None
            process.communicate()
        return process.returncode


def _status_bytes(field: str) -> int:
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * _KIB
    raise LookupError(field)


def _measured(path: pathlib.Path) -> Loading:
    pool, libc = pa.default_memory_pool(), ctypes.CDLL(None)
    # What allocators keep would hide the next file's need.
    pool.release_unused()
    libc.malloc_trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak becomes what is in use now.
    resident, arrow = _status_bytes("VmRSS"), pool.max_memory()
    faulthandler.dump_traceback_later(LONGEST_S, exit=True)
    try:
        outcome, message = "card", formats.LoRAFormat.load(path).name
    except errors.SkillmeshError as error:
        outcome, message = type(error).__name__, str(error)
    except Exception as error:
        outcome, message = f"untyped {type(error).__name__}", str(error)
    faulthandler.cancel_dump_traceback_later()
    peak = _status_bytes("VmHWM") - resident
    # Arrow's own count also knows of memory that nothing was written to yet.
    if pool.max_memory() > arrow:
        peak = max(peak, pool.max_memory())
    return Loading(outcome, message[:1000], peak)


def _main() -> None:
    for line in sys.stdin:
        print(
            json.dumps(dataclasses.asdict(_measured(pathlib.Path(line.rstrip("\n"))))), flush=True
        )


if __name__ == "__main__":
    _main()
