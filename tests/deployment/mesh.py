"""The containers of docker-compose.yml as plain processes of this machine.

Each has the entry point, the variables, the secrets and the health check that the files give it;
names of hosts are replaced by addresses of loopback, folders of volumes by folders of the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence

from tests.contract import addresses
from tests.deployment import balancer, compose, dockerfile

_PATIENCE_S = 900.0
_ADDRESS = re.compile(r"\b([a-z][a-z0-9-]*|0\.0\.0\.0):(\d{4})\b")
_STATE = "/var/lib/skillmesh"
_SECRETS = "/run/secrets"


@dataclasses.dataclass
class Replica:
    """One process in place of a container."""

    container: compose.Container
    environment: dict[str, str]
    folder: pathlib.Path
    process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> pathlib.Path:
        return self.folder / "log"

    @property
    def address(self) -> str:
        """What its health check asks."""
        key = self.container.health[3]
        return self.environment["SKILLMESH__" + key.replace(".", "__").upper()]

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *_on_this_machine(self.container.command),
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                # As containers are: none is scheduled, or sent signals, as a part of another.
                start_new_session=True,
            )

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        process, self.process = self.process, None
        assert process is not None
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        return await asyncio.wait_for(process.wait(), _PATIENCE_S)

    async def unhealthy(self) -> str:
        """What its health check says; empty where it is healthy."""
        check = await asyncio.create_subprocess_exec(
            *_on_this_machine(self.container.health),
            cwd=self.folder,
            env=self.environment,
            stderr=asyncio.subprocess.PIPE,
        )
        _, told = await check.communicate()
        return "" if check.returncode == 0 else told.decode() or "no reason"

    async def until_healthy(self) -> None:
        """Until its health check is content; not asked before it listens, since it costs more."""
        deadline = time.monotonic() + _PATIENCE_S
        while not await _listens(self.address):
            assert self.process is not None, self.container.name
            assert self.process.returncode is None, self._end_of_log()
            assert time.monotonic() < deadline, self._end_of_log()
            await asyncio.sleep(0.2)
        while told := await self.unhealthy():
            assert self.process is not None and self.process.returncode is None, self._end_of_log()
            assert time.monotonic() < deadline, f"{told}\n{self._end_of_log()}"
            await asyncio.sleep(1)

    def _end_of_log(self) -> str:
        lines = self.log.read_text().splitlines()[-15:]
        return "\n".join([f"{self.container.name}:", *lines])


@dataclasses.dataclass(frozen=True)
class Mesh:
    """All of them."""

    replicas: dict[str, list[Replica]]
    where: dict[str, str]
    """`name:port` of the compose file to the address on loopback."""

    def all(self) -> list[Replica]:
        return [one for replicas in self.replicas.values() for one in replicas]


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path,
    secrets: Mapping[str, pathlib.Path],
    configuration: str,
    variables: Mapping[str, str],
    counts: Mapping[str, int],
    more: Mapping[str, str] | None = None,
    knowledge: pathlib.Path | None = None,
) -> AsyncIterator[Mesh]:
    """The mesh, from its start to its end.

    Args:
        folder: gets a folder for each container and volume.
        secrets: file of each secret.
        configuration: what stands in config.yaml.
        variables: what --env-file gives the compose file.
        counts: containers to start, with how many of each.
        more: further variables of every process.
        knowledge: documents; none by default.
    """
    found = compose.containers(variables)
    chosen = {name: [found[name]] * count for name, count in counts.items()}
    own: dict[tuple[str, int, int], str] = {}
    where: dict[str, str] = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, replicas in chosen.items():
            for port in _ports(replicas[0]):
                behind = [addresses.free_address() for _ in replicas]
                own |= {(name, at, port): address for at, address in enumerate(behind)}
                where[f"{name}:{port}"] = behind[0]
                if len(behind) > 1:
                    front = where[f"{name}:{port}"] = addresses.free_address()
                    await stack.enter_async_context(balancer.listening(front, behind))
        mesh = Mesh({}, where)
        for name, replicas in chosen.items():
            mesh.replicas[name] = []
            for at, container in enumerate(replicas):
                place = folder / f"{name}-{at}"
                place.mkdir(parents=True)
                (place / "config.yaml").write_text(configuration)
                documents = knowledge or folder / "no-documents"
                documents.mkdir(exist_ok=True)
                (place / "knowledge").symlink_to(documents)
                environment = {
                    key: _replaced(value, container, at, own, where, folder, secrets)
                    for key, value in container.environment.items()
                }
                path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.defpath])
                environment |= {"PATH": path, "PYTHONPATH": str(dockerfile.ROOT)}
                mesh.replicas[name].append(
                    Replica(container, environment | dict(more or {}), place)
                )
        try:
            await asyncio.gather(*(one.start() for one in mesh.all()))
            await asyncio.gather(*(one.until_healthy() for one in mesh.all()))
            yield mesh
        finally:
            await asyncio.gather(*(one.end() for one in mesh.all() if one.process is not None))


async def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    return True


def _ports(container: compose.Container) -> list[int]:
    """On which it listens, metrics included."""
    return sorted(
        {
            int(found[2])
            for value in container.environment.values()
            for found in _ADDRESS.finditer(value)
            if found[1] == "0.0.0.0"
        }
    )


def _replaced(
    value: str,
    container: compose.Container,
    at: int,
    own: Mapping[tuple[str, int, int], str],
    where: Mapping[str, str],
    folder: pathlib.Path,
    secrets: Mapping[str, pathlib.Path],
) -> str:
    def address(match: re.Match[str]) -> str:
        if match[1] == "0.0.0.0":
            return own[container.name, at, int(match[2])]
        # Nobody listens there: a container that was not started.
        return where.get(match[0], "127.0.0.1:9")

    value = _ADDRESS.sub(address, value)
    for name, secret in container.secrets.items():
        value = re.sub(rf"{_SECRETS}/{name}$", str(secrets[secret]), value)
    for inside, volume in sorted(container.volumes.items(), reverse=True):
        if inside == value and not volume.startswith("."):
            # Volumes are shared as they are named; that of the state is each replica's own.
            name = f"{volume}-{at}" if inside == _STATE else volume
            return str(_made(folder / "volumes" / name))
    if value == _STATE:
        return str(_made(folder / "volumes" / f"{container.name}-{at}"))
    return value


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _on_this_machine(command: Sequence[str]) -> list[str]:
    assert command[0] == "python", command
    return [sys.executable, *command[1:]]
