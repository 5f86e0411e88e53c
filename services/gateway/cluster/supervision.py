"""One supervisord: its configuration, its start and end, what it says about its processes.

Knows nothing of what the processes do. Everything lies in one folder: `supervisord.conf`,
`supervisord.log`, `supervisord.pid`, `supervisor.sock`, `logs/NAME.log`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import os
import pathlib
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from supervisor import xmlrpc as supervisor_xmlrpc

from services.gateway.cluster import programs as programs_module
from shared import errors

_LONGEST_SOCKET_PATH_BYTES = 95
"""The system takes some 107, and supervisord first binds to the path with its pid behind."""
_START_S, _STOP_S, _PAUSE_S = 30.0, 60.0, 0.1

_HEAD = """\
; Written by `make up`; changes are lost at the next start.
[supervisord]
logfile=%(here)s/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile=%(here)s/supervisord.pid
childlogdir=%(here)s/logs

[unix_http_server]
file={socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://{socket}
"""
_PROGRAM = """
[program:{name}]
command={command}
autorestart=true
startsecs=1
startretries=100
stopwaitsecs={stop_s:.0f}
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile=%(here)s/logs/{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


@dataclasses.dataclass(frozen=True)
class ProcessState:
    """What supervisord says about one process."""

    name: str
    state: str
    """STARTING, RUNNING, BACKOFF, STOPPING, STOPPED, EXITED, FATAL."""
    pid: int
    """0 where it is not running."""
    uptime_s: float
    started_at_s: float
    """Unix time of the latest start; 0 before the first."""
    reason: str
    """Why it is not running."""


class Supervisor:
    """The supervisord of one state folder, running or not."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Takes the state folder."""
        self.folder = folder.absolute()
        self._socket = _socket_path(self.folder)

    def log(self, name: str) -> pathlib.Path:
        """Where the output of a process goes."""
        return self.folder / "logs" / f"{name}.log"

    def alive(self) -> bool:
        """Whether it is running."""
        try:
            with self._rpc() as rpc:
                rpc.getState()
        except errors.UnavailableError:
            return False
        return True

    def start(
        self, programs: Sequence[programs_module.Program], environment: Mapping[str, str]
    ) -> None:
        """Writes its configuration and starts it with all programs.

        Args:
            programs: what it shall run.
            environment: everything that the processes find in theirs.

        Raises:
            errors.ConfigError: it did not start; says why.
        """
        try:
            (self.folder / "logs").mkdir(parents=True, exist_ok=True)
            self._socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_socket_folder()
            path = self.folder / "supervisord.conf"
            path.write_text(configuration(programs, self._socket), encoding="utf-8")
        except OSError as error:
            raise errors.ConfigError(f"cluster.state_dir: can't write: {error}") from error
        # Environment and working folder reach the processes by inheritance: written into the
        # file, every special character in them would have to be escaped for supervisord.
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_START_S,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise errors.ConfigError(f"supervisord did not start: {said}")
        _until(self.alive, _START_S, f"supervisord is silent; see {self.folder}/supervisord.log")

    def _check_socket_folder(self) -> None:
        """Whoever can write where the socket is can give another one for it.

        Raises:
            errors.ConfigError: others can.
        """
        folder = self._socket.parent
        if folder == self.folder:
            return
        found = folder.lstat()
        if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o077:
            raise errors.ConfigError(
                f"{folder} belongs to others, or is open to them, and the supervisor's socket "
                "would lie there: remove it, or give cluster.state_dir a shorter path"
            )

    def stop(self) -> None:
        """Ends all processes and supervisord itself; returns when they have ended."""
        with self._rpc() as rpc:
            # All at once: shutdown alone ends one after the other.
            rpc.stopAllProcesses(False)
            rpc.shutdown()
        pid_file = self.folder / "supervisord.pid"
        _until(lambda: not pid_file.exists(), _STOP_S, f"supervisord still runs; see {pid_file}")

    def processes(self) -> list[ProcessState]:
        """All processes, in the order in which they were given."""
        with self._rpc() as rpc:
            return [_state(info) for info in rpc.getAllProcessInfo()]

    def ensure_running(self) -> None:
        """Starts what is stopped or was given up."""
        with self._rpc() as rpc:
            rpc.startAllProcesses(False)

    @contextlib.contextmanager
    def _rpc(self) -> Iterator[Any]:
        transport = supervisor_xmlrpc.SupervisorTransport(serverurl=f"unix://{self._socket}")
        try:
            yield xmlrpc.client.ServerProxy("http://supervisor", transport).supervisor
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise errors.UnavailableError(
                f"no cluster runs in {self.folder}; start it with `make up`"
            ) from error
        except xmlrpc.client.Fault as error:
            if error.faultCode == supervisor_xmlrpc.Faults.SHUTDOWN_STATE:
                raise errors.UnavailableError(
                    f"the cluster in {self.folder} is stopping; wait, then start it with `make up`"
                ) from error
            raise errors.PreconditionError(f"supervisord: {error.faultString}") from error
        finally:
            transport.close()


def configuration(programs: Sequence[programs_module.Program], socket: pathlib.Path) -> str:
    """The content of supervisord.conf."""
    parts = [_HEAD.format(socket=str(socket).replace("%", "%%"))]
    for program in programs:
        command = shlex.join([sys.executable, "-m", program.module]).replace("%", "%%")
        parts.append(_PROGRAM.format(name=program.name, command=command, stop_s=program.stop_s))
    return "".join(parts)


def tail(path: pathlib.Path, lines: int) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def _state(info: Mapping[str, Any]) -> ProcessState:
    running = info["statename"] == "RUNNING"
    return ProcessState(
        name=info["name"],
        state=info["statename"],
        pid=info["pid"],
        uptime_s=float(max(0, info["now"] - info["start"])) if running else 0.0,
        started_at_s=float(info["start"]),
        reason=info["spawnerr"] or ("" if running else info["description"]),
    )


def _socket_path(folder: pathlib.Path) -> pathlib.Path:
    path = folder / "supervisor.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH_BYTES:
        return path
    # The same folder must always give the same path: `make down` has to find it.
    short = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return pathlib.Path(tempfile.gettempdir(), f"skillmesh-{os.getuid()}", f"{short}.sock")


def _until(condition: Any, limit_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise errors.DeadlineError(otherwise)
        time.sleep(_PAUSE_S)
