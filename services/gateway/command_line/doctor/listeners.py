"""Who listens on a TCP port of this machine, by /proc; elsewhere nobody knows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

_PROC = pathlib.Path("/proc")
_LISTEN = "0A"
_LONGEST_COMMAND = 80


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process that listens."""

    pid: int
    """0 where it belongs to another user, whose processes can't be looked into."""
    command: str


def holder(port: int) -> Holder | None:
    """Who listens on a port; None where nobody does, or this system has no /proc."""
    inodes = set(_listening(port))
    if not inodes:
        return None
    for process in _PROC.iterdir():
        if process.name.isdigit() and inodes & set(_sockets(process)):
            return Holder(int(process.name), _command(process))
    return Holder(0, "")


def _listening(port: int) -> Iterator[str]:
    """Inodes of the sockets that listen on a port, IPv4 and IPv6."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                local, state, inode = fields[1], fields[3], fields[9]
                if state == _LISTEN and int(local.rpartition(":")[2], 16) == port:
                    yield inode


def _sockets(process: pathlib.Path) -> Iterator[str]:
    """Inodes of a process's sockets; none of one that ended or belongs to others."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    yield target[len("socket:[") : -1]


def _command(process: pathlib.Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    text = " ".join(word.decode(errors="replace") for word in words if word)
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"
