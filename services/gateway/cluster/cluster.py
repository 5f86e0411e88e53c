"""`Cluster`: all services of one state folder as supervised processes on this machine.

Used by `make up` with the configured ports and folder, and by the demo, the benchmarks and the
end-to-end tests with free ports and a folder of their own. Knows nothing about questions and
cards.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import time
import uuid
from collections.abc import Callable, Mapping

import pydantic

from services.gateway.cluster import health, programs, supervision
from shared import errors
from shared import settings as config
from shared.security import protection as protections

ROOT = pathlib.Path(__file__).resolve().parents[3]
"""Where `services` and `shared` are imported from."""
_START_LIMIT_S = 240.0
_PAUSE_S = 0.2
_RESTARTS_ALLOWED = 4
_SHOWN_LINES = 8
_OVERRIDES = "SKILLMESH__"

OnProgress = Callable[[int, int, str], None]
"""Told how many services answer, of how many, and which are awaited."""


class Cluster:
    """One local cluster, running or not."""

    def __init__(
        self, settings: config.Settings, environment: Mapping[str, str] | None = None
    ) -> None:
        """Takes what it shall run with; starts nothing.

        Args:
            settings: addresses, state folder, everything.
            environment: variables for its processes beside those of this one.
        """
        state_dir = settings.cluster.state_dir.absolute()
        self.settings = _resolved(settings, state_dir)
        self.state_dir = state_dir
        self.programs = programs.of(self.settings)
        self.supervisor = supervision.Supervisor(state_dir)
        self._protection = protections.Protection.configured(self.settings)
        self._knowledge = settings.distiller.knowledge_dir
        self._environment = dict(environment or {})

    @classmethod
    def private(
        cls,
        state_dir: pathlib.Path,
        settings: config.Settings | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Cluster:
        """A cluster that no other can be confused with: own folder, own name, free ports.

        Args:
            state_dir: where it keeps everything; `state_dir/knowledge` may hold documents already.
            settings: everything else; by default that of the configuration.
            environment: variables for its processes beside those of this one.
        """
        chosen = programs.on_free_ports(settings or config.load())
        own = chosen.cluster.model_copy(
            update={"name": f"private-{uuid.uuid4().hex[:8]}", "state_dir": state_dir}
        )
        # Its one store is known: no multicast needed, and none heard.
        discovery = chosen.discovery.model_copy(
            update={"zeroconf": False, "stores": (chosen.card_store.address,)}
        )
        return cls(chosen.model_copy(update={"cluster": own, "discovery": discovery}), environment)

    def __enter__(self) -> Cluster:
        """Starts it."""
        self.start()
        return self

    def __exit__(self, *unused: object) -> None:
        """Stops it."""
        self.stop()

    @property
    def addresses(self) -> dict[str, str]:
        """`host:port` of every process by name."""
        return {program.name: program.address for program in self.programs}

    def start(self, on_progress: OnProgress | None = None) -> bool:
        """Starts what does not run yet and waits until every service answers.

        Returns:
            Whether it was started; false where it ran already.

        Raises:
            errors.ConfigError: a port is taken, a folder is missing, or a service refuses its
                configuration.
            errors.UnavailableError: a service does not come up.
        """
        running = self.supervisor.alive()
        if running:
            self.supervisor.ensure_running()
        else:
            programs.check_ports(self.programs)
            try:
                self._prepare()
            except OSError as error:
                raise errors.ConfigError(
                    f"cluster.state_dir: can't prepare {self.state_dir}: {error}; make it a folder "
                    "that can be written, or name another in config.yaml"
                ) from error
            self.supervisor.start(self.programs, self._child_environment())
        try:
            self.until_healthy(on_progress)
        except BaseException:
            # Also for Ctrl-C: half a cluster that nobody knows of would hold the ports.
            if not running:
                self.stop()
            raise
        return not running

    def stop(self) -> bool:
        """Ends all its processes; false where none ran."""
        if not self.supervisor.alive():
            return False
        self.supervisor.stop()
        return True

    def pid(self, name: str) -> int:
        """Process id of one program.

        Raises:
            errors.NotFoundError: it has no such program, or it is not running right now.
        """
        for process in self.supervisor.processes():
            if process.name == name and process.pid:
                return process.pid
        raise errors.NotFoundError(f"no process {name} runs in {self.state_dir}")

    def healthy(self) -> set[str]:
        """Names of the programs that answer right now."""
        return health.healthy(self.programs, self._protection)

    def until_healthy(self, on_progress: OnProgress | None = None) -> None:
        """Waits until every service answers, and the gateway could answer a question.

        Raises:
            errors.UnavailableError: one crashes again and again, or is not there in time.
        """
        deadline = time.monotonic() + _START_LIMIT_S
        starts: dict[str, set[float]] = {program.name: set() for program in self.programs}
        # Nodes elsewhere may come later; the own ones come now.
        own = {"inference", "router"} <= starts.keys()
        gateway = health.READY if own else health.LIVES
        well: set[str] = set()
        while len(well) < len(self.programs):
            waiting = [program for program in self.programs if program.name not in well]
            well |= health.healthy(waiting, self._protection, gateway)
            missing = [program.name for program in waiting if program.name not in well]
            if on_progress is not None:
                on_progress(len(well), len(self.programs), ", ".join(missing))
            for process in self.supervisor.processes():
                starts[process.name].add(process.started_at_s)
                given_up = len(starts[process.name]) > _RESTARTS_ALLOWED
                if process.name in missing and (given_up or process.state == "FATAL"):
                    raise errors.UnavailableError(
                        self._trouble(process.name, "does not stay up", process.reason)
                    )
            if missing and time.monotonic() > deadline:
                reason = f"no answer for {_START_LIMIT_S:.0f} s"
                raise errors.UnavailableError(self._trouble(missing[0], "is silent", reason))
            if missing:
                time.sleep(_PAUSE_S)

    def _trouble(self, name: str, what: str, reason: str) -> str:
        log = self.supervisor.log(name)
        said = supervision.tail(log, _SHOWN_LINES)
        return f"{name} {what} ({reason}); the end of {log}:\n{said}"

    def _prepare(self) -> None:
        knowledge = self.settings.distiller.knowledge_dir
        if not knowledge.exists():
            if not self._knowledge.is_dir():
                raise errors.ConfigError(
                    f"distiller.knowledge_dir: there is no folder {self._knowledge.absolute()}; "
                    "make it, or name the folder of your documents in config.yaml"
                )
            # By way of a temporary name: a copy that was interrupted must not pass for a whole one.
            part = knowledge.with_name("knowledge.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(self._knowledge, part)
            part.rename(knowledge)
        path = self._config_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # Database URLs may hold passwords.
        path.write_text(_as_yaml(self.settings), encoding="utf-8")

    def _config_path(self) -> pathlib.Path:
        return self.state_dir / "config.yaml"

    def _child_environment(self) -> dict[str, str]:
        # The overrides of this process are in the written configuration already; inherited as
        # well they would win over what a private cluster changed.
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(_OVERRIDES)
        }
        paths = [str(ROOT), inherited.get("PYTHONPATH", "")]
        own = {
            config.CONFIG_VARIABLE: str(self._config_path()),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            # No module of the folder that it is started in is taken for one of ours.
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        return inherited | own | self._environment


def _resolved(settings: config.Settings, state_dir: pathlib.Path) -> config.Settings:
    """The settings that the processes get: absolute folders, knowledge of their own."""
    cluster = settings.cluster.model_copy(update={"state_dir": state_dir})
    distiller = settings.distiller.model_copy(update={"knowledge_dir": state_dir / "knowledge"})
    security = _absolute(settings.security)
    return settings.model_copy(
        update={"cluster": cluster, "distiller": distiller, "security": security}
    )


def _absolute(security: config.Security) -> config.Security:
    """With paths that mean the same wherever a process is started."""

    def resolved(section: pydantic.BaseModel) -> dict[str, object]:
        return {
            name: value.absolute() for name, value in section if isinstance(value, pathlib.Path)
        }

    tls = security.tls.model_copy(update=resolved(security.tls))
    return security.model_copy(update=resolved(security) | {"tls": tls})


def _as_yaml(settings: config.Settings) -> str:
    # JSON is YAML.
    return json.dumps(settings.model_dump(mode="json"), indent=2) + "\n"
