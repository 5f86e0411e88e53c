"""Processes that are measured: services as production starts them, and a peer's server.

Each writes a log that is told where it fails; all of them end with the block.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from services.gateway.cluster import health, programs, supervision
from shared import settings as config

START_S = 600.0
_STOP_S, _PAUSE_S = 60.0, 0.2
_TOLD_LINES = 30
_MIB = 1024
_STATUS_FIELD = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)


class Process:
    """One command until `end`."""

    def __init__(
        self, command: Sequence[str], log: pathlib.Path, environment: Mapping[str, str]
    ) -> None:
        """Starts it with one thread and these variables beside those of this process."""
        self._log = log
        with log.open("wb") as output:
            self._popen = subprocess.Popen(
                list(command),
                env=os.environ | {"OMP_NUM_THREADS": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def until(self, is_ready: Callable[[], bool]) -> None:
        """Waits until it is ready.

        Raises:
            RuntimeError: it ended, or took too long; tells the end of its log.
        """
        deadline_s = time.monotonic() + START_S
        while not is_ready():
            if self._popen.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(supervision.tail(self._log, _TOLD_LINES))
            time.sleep(_PAUSE_S)

    def pause(self) -> None:
        """Leaves the cores to others until `go_on`: some servers are never idle."""
        self._popen.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets it run again."""
        self._popen.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """Stops it and waits."""
        self.go_on()
        self._popen.terminate()
        try:
            self._popen.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


@contextlib.contextmanager
def services(
    settings: config.Settings, names: Sequence[str], folder: pathlib.Path
) -> Iterator[dict[str, Process]]:
    """Some programs of a cluster without whoever supervises them.

    Args:
        settings: with free ports; see `alone`.
        names: of the programs.
        folder: for their configuration and logs.

    Yields:
        The processes by name, once all of them serve.

    Raises:
        RuntimeError: one does not start.
    """
    path = folder / "config.yaml"
    path.write_text(settings.model_dump_json(), encoding="utf-8")
    wanted = {one.name: one for one in programs.of(settings) if one.name in names}
    with contextlib.ExitStack() as stack:
        started = {}
        for name, program in wanted.items():
            command = (sys.executable, "-m", program.module)
            log = folder / f"{name}.log"
            started[name] = Process(command, log, {config.CONFIG_VARIABLE: str(path)})
            stack.callback(started[name].end)
        for name, process in started.items():
            one = [wanted[name]]
            process.until(lambda one=one: bool(health.healthy(one, gateway=health.READY)))  # type: ignore[misc]
        yield started


def alone(folder: pathlib.Path, max_new_tokens: int) -> config.Settings:
    """The defaults on free ports, in a folder of their own, without multicast."""
    free = programs.on_free_ports(config.Settings())
    inference = free.inference.model_copy(update={"max_new_tokens": max_new_tokens})
    return free.model_copy(
        update={
            "cluster": config.Cluster(state_dir=folder),
            "inference": inference,
            "discovery": config.Discovery(zeroconf=False, stores=(free.card_store.address,)),
        }
    )


def own_memory_mib(pid: int) -> float:
    """What a process holds and shares with nobody: `RssAnon` of the Linux kernel."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = _STATUS_FIELD.search(status)
    return int(found[1]) / _MIB if found is not None else 0.0
