"""Submissions on their way to the hierarchy: on disk until they are settled, in order, bounded.

Knows nothing of what they hold.
"""

from __future__ import annotations

import pathlib
import re

from shared import atomic, errors

_NAME = re.compile(r"(\d{15})\.submission")


class Outbox:
    """The folder of one node; for one thread at a time."""

    def __init__(self, folder: pathlib.Path, most_bytes: int) -> None:
        """Reads what waits there.

        Args:
            folder: gets a folder for each agent.
            most_bytes: of all that wait; more are refused.

        Raises:
            errors.ConfigError: it can't be made or read.
        """
        self._folder, self._most_bytes = folder, most_bytes
        self._sizes: dict[str, dict[int, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for path in folder.glob("*/*"):
                if found := _NAME.fullmatch(path.name):
                    of_agent = self._sizes.setdefault(path.parent.name, {})
                    of_agent[int(found[1])] = path.stat().st_size
                else:
                    path.unlink()  # Of a process that was killed while it wrote.
        except OSError as error:
            raise errors.ConfigError(
                f"submissions can't be kept in {folder}: {error}; check cluster.state_dir"
            ) from error

    @property
    def size_bytes(self) -> int:
        """Of all that wait."""
        return sum(size for of_agent in self._sizes.values() for size in of_agent.values())

    def waiting(self, agent: str) -> list[int]:
        """Sequences of an agent's submissions that are not settled, in order."""
        return sorted(self._sizes.get(agent, {}))

    def has_room(self, size_bytes: int = 0) -> bool:
        """Whether so many bytes more may wait; one alone always may."""
        held = self.size_bytes
        return not held or held + size_bytes <= self._most_bytes

    def put(self, agent: str, sequence: int, data: bytes, replace: bool = False) -> None:
        """Keeps a submission; it is on disk when this returns. Again, it changes nothing.

        Args:
            agent: whose.
            sequence: of it.
            data: as `shared.hierarchy.wire` writes it.
            replace: put it in the place of one that is there.

        Raises:
            errors.OverloadedError: there is no room until others are settled.
        """
        of_agent = self._sizes.setdefault(agent, {})
        if sequence in of_agent and not replace:
            return
        if not replace and not self.has_room(len(data)):
            raise errors.OverloadedError(
                f"agent {agent}: {self.size_bytes} bytes wait for the hierarchy, with these "
                f"{len(data)} more than hierarchy.agents.waiting_mib allows; learning goes on "
                "once it has taken some"
            )
        try:
            atomic.write(self._path(agent, sequence), data)
        except OSError as error:
            raise errors.OverloadedError(
                f"agent {agent}: can't keep a submission: {error}"
            ) from error
        of_agent[sequence] = len(data)

    def read(self, agent: str, sequence: int) -> bytes:
        """A submission that waits."""
        return self._path(agent, sequence).read_bytes()

    def settle(self, agent: str, sequence: int) -> None:
        """Drops an agent's submissions up to a sequence."""
        of_agent = self._sizes.get(agent, {})
        for settled in [one for one in of_agent if one <= sequence]:
            self._path(agent, settled).unlink(missing_ok=True)
            del of_agent[settled]

    def forget(self, agent: str) -> None:
        """Drops all of an agent."""
        for sequence in self.waiting(agent):
            self.settle(agent, sequence)

    def _path(self, agent: str, sequence: int) -> pathlib.Path:
        return self._folder / agent / f"{sequence:015d}.submission"
