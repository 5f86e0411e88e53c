"""Who belongs to the hierarchy: its frame, and the agents with whoever they speak for.

Both are kept on disk: the frame, which the first agent brings, once; the agents whenever one joins.
Knows nothing of weights but their shapes.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import re
import threading
from collections.abc import Callable, Mapping
from typing import Annotated

import pydantic

from shared import atomic, errors
from shared.hierarchy import levels, weights, wire
from shared.security import callers

AGENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MOST_MODULES = 4096
_MOST_FEATURES = 2**20
_LONGEST_PATH = 200
_ITEM_BYTES = 4
_FRAME_FILE, _AGENTS_FILE = "frame.json", "agents.json"


@dataclasses.dataclass(frozen=True)
class Base:
    """The base model that a hierarchy is about."""

    fingerprint: str
    """See `shared.models.base`."""
    shapes: Mapping[str, weights.Shape]
    """Of all linear layers that are adapted, by module path."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One agent."""

    agent: str
    node: str
    """That it joined from last."""
    owner: str
    """The tenant or token that it belongs to; empty where no tokens were configured."""
    joined_at_ms: int
    """Unix time."""


def owner_of(caller: callers.Caller) -> str:
    """To whom the agents of a call belong; empty where no tokens are configured."""
    if caller is callers.ANYBODY:
        return ""
    return f"tenant:{caller.tenant}" if caller.tenant else f"token:{caller.name}"


class _KeptBase(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    fingerprint: str
    modules: dict[str, tuple[int, int]]
    layers: dict[levels.Level, tuple[int, Annotated[float, pydantic.Field(ge=0, lt=1)]]]


_AGENTS = pydantic.TypeAdapter(dict[str, Member])


class Members:
    """Safe to use from several threads."""

    def __init__(
        self,
        folder: pathlib.Path,
        specs: Mapping[levels.Level, levels.Spec],
        most_agents: int,
        most_circuits: int,
        clock_ms: Callable[[], int],
        most_bytes: float = math.inf,
        most_per_owner: float = math.inf,
    ) -> None:
        """Reads what is kept.

        Args:
            folder: where it is.
            specs: what a new hierarchy is made with.
            most_agents: further ones can't join.
            most_circuits: in one submission.
            clock_ms: Unix time in milliseconds.
            most_bytes: of the shared layers of a base model that is taken.
            most_per_owner: agents of one token or tenant.

        Raises:
            errors.ConfigError: what is kept can't be read, or has other ranks than configured.
        """
        self._folder, self._specs, self._most_agents = folder, dict(specs), most_agents
        self._most_circuits = most_circuits
        self._clock_ms, self._most_bytes = clock_ms, most_bytes
        self._most_per_owner = most_per_owner
        self._lock = threading.RLock()
        self._base: Base | None = None
        self._agents: dict[str, Member] = {}
        try:
            if (path := folder / _AGENTS_FILE).exists():
                self._agents = _AGENTS.validate_json(path.read_bytes())
            if (path := folder / _FRAME_FILE).exists():
                self._base = self._read(_KeptBase.model_validate_json(path.read_bytes()))
        except (OSError, pydantic.ValidationError) as error:
            raise errors.ConfigError(
                f"hierarchy: {path} can't be read: {error}; restore it from a backup, or empty the "
                "folder to begin anew"
            ) from error

    def _read(self, kept: _KeptBase) -> Base:
        ranks = {level: rank for level, (rank, _) in kept.layers.items()}
        wanted = {level: spec.rank for level, spec in self._specs.items()}
        if ranks != wanted:
            raise errors.ConfigError(
                f"hierarchy.layers: the ranks are {_named(wanted)}, but this hierarchy was made "
                f"with {_named(ranks)}; set them back, or move {self._folder} away to begin anew"
            )
        shapes = {path: weights.Shape(*sides) for path, sides in kept.modules.items()}
        return Base(kept.fingerprint, shapes)

    @property
    def base(self) -> Base | None:
        """None until the first agent joined."""
        return self._base

    @property
    def frame(self) -> wire.Frame | None:
        """What submissions and snapshots must fit; None until the first agent joined."""
        if self._base is None:
            return None
        return wire.Frame(self._base.shapes, self._specs, self._most_circuits)

    @property
    def agents(self) -> list[Member]:
        """All, in the order of their first joining."""
        with self._lock:
            return list(self._agents.values())

    def join(self, agent: str, node: str, owner: str, base: Base) -> Member:
        """Makes an agent known; another call with the same changes at most its node.

        Args:
            agent: its id.
            node: that it answers on.
            owner: the tenant or token of the call; empty where no tokens are configured.
            base: that its node has loaded.

        Raises:
            errors.InvalidInputError: a name or shape that can't be.
            errors.BaseModelMismatchError: the hierarchy is about another base or other modules.
            errors.ForbiddenError: the agent is somebody else's.
            errors.CapacityError: there are as many agents as may be, or the base is too large.
        """
        if not AGENT_NAME.fullmatch(agent):
            raise errors.InvalidInputError(
                f"agent {agent[:80]!r}: a name has 1 to 64 letters, digits, dots, dashes and "
                "underscores, and begins with a letter or digit"
            )
        if len(node) > _LONGEST_PATH or not node.isprintable():
            raise errors.InvalidInputError(f"agent {agent}: node {node[:80]!r} is no name")
        _check_base(base)
        with self._lock:
            known = self._agents.get(agent)
            if known is not None:
                self._check_owner(known, owner)
            elif len(self._agents) >= self._most_agents:
                raise errors.CapacityError(
                    f"agent {agent}: {len(self._agents)} agents have joined, and "
                    f"hierarchy.limits.agents allows no more"
                )
            if owner and (known is None or not known.owner):
                self._check_room(agent, owner)
            self._settle_base(agent, base)
            joined_at_ms = known.joined_at_ms if known else self._clock_ms()
            member = Member(agent, node, owner or (known.owner if known else ""), joined_at_ms)
            if member != known:
                changed = self._agents | {agent: member}
                self._keep(_AGENTS_FILE, _AGENTS.dump_json(changed, indent=1))
                self._agents = changed
            return member

    def _check_room(self, agent: str, owner: str) -> None:
        own = sum(member.owner == owner for member in self._agents.values())
        if own >= self._most_per_owner:
            raise errors.CapacityError(
                f"agent {agent}: {own} agents of this token or tenant have joined, and "
                f"hierarchy.limits.agents_per_owner allows no more"
            )

    def check(self, agent: str, owner: str) -> Member:
        """The agent, for a call that speaks for it.

        Raises:
            errors.PreconditionError: it has not joined.
            errors.ForbiddenError: it is somebody else's.
        """
        with self._lock:
            member = self._agents.get(agent)
            if member is None:
                raise errors.PreconditionError(f"agent {agent[:80]!r} has not joined: join first")
            self._check_owner(member, owner)
            return member

    def _check_owner(self, member: Member, owner: str) -> None:
        # What joined while no tokens were configured belongs to the first that joins it with one.
        if member.owner and member.owner != owner:
            raise errors.ForbiddenError(
                f"agent {member.agent} belongs to another token or tenant; use that one, or "
                "another name for the agent"
            )

    def _settle_base(self, agent: str, base: Base) -> None:
        if self._base is None:
            self._check_size(base)
            kept = {
                "fingerprint": base.fingerprint,
                "modules": {
                    path: (shape.in_features, shape.out_features)
                    for path, shape in base.shapes.items()
                },
                "layers": {level: (spec.rank, spec.inertia) for level, spec in self._specs.items()},
            }
            self._keep(_FRAME_FILE, json.dumps(kept, indent=1).encode())
            self._base = base
            return
        if base.fingerprint != self._base.fingerprint:
            raise errors.BaseModelMismatchError(
                f"agent {agent}: its base model is {base.fingerprint[:12]}, this hierarchy is of "
                f"{self._base.fingerprint[:12]}; each base needs a hierarchy of its own"
            )
        if dict(base.shapes) != dict(self._base.shapes):
            differing = {
                path
                for path in base.shapes.keys() | self._base.shapes.keys()
                if base.shapes.get(path) != self._base.shapes.get(path)
            }
            raise errors.BaseModelMismatchError(
                f"agent {agent}: {len(differing)} modules are not those of this hierarchy, such as "
                f"{min(differing)!r}; hierarchy.kinds must be the same on all nodes"
            )

    def _check_size(self, base: Base) -> None:
        sides = sum(shape.in_features + shape.out_features for shape in base.shapes.values())
        ranks = sum(self._specs[level].rank for level in levels.SHARED)
        if (size := _ITEM_BYTES * ranks * sides) > self._most_bytes:
            raise errors.CapacityError(
                f"modules: the shared layers of these {len(base.shapes)} would have {size} bytes, "
                f"of {self._most_bytes:.0f} that hierarchy.limits.memory_mib allows; adapt fewer "
                "kinds, or take smaller ranks"
            )

    def _keep(self, name: str, content: bytes) -> None:
        try:
            atomic.write(self._folder / name, content)
        except OSError as error:
            raise errors.UnavailableError(
                f"hierarchy: can't write {self._folder / name}: {error}"
            ) from error


def _check_base(base: Base) -> None:
    if not 0 < len(base.fingerprint) <= _LONGEST_PATH or not base.fingerprint.isprintable():
        raise errors.InvalidInputError("base_fingerprint is missing, or is none")
    if not 0 < len(base.shapes) <= _MOST_MODULES:
        raise errors.InvalidInputError(
            f"modules: {len(base.shapes)} of them; a hierarchy has 1 to {_MOST_MODULES}"
        )
    for path, shape in base.shapes.items():
        sides = (shape.in_features, shape.out_features)
        well_named = 0 < len(path) <= _LONGEST_PATH and path.isprintable()
        if not well_named or not all(0 < side <= _MOST_FEATURES for side in sides):
            raise errors.InvalidInputError(f"modules: {path[:80]!r} with the sides {sides}")


def _named(ranks: Mapping[levels.Level, int]) -> str:
    return ", ".join(f"{level} {ranks[level]}" for level in levels.LEVELS if level in ranks)
