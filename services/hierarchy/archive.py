"""The committed state of the hierarchy in parts, of which only those that changed are written anew.

Knows parts by name, as named tensors, and the state's other values as plain ones; what they mean
it does not know. Tensors that were handed in are never written to.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import torch

from services.hierarchy import journal
from shared import errors
from shared.hierarchy import packing

Part = Mapping[str, torch.Tensor]
_LIES, _KEPT, _STATE = "lies", "kept", "state"


@dataclasses.dataclass(frozen=True)
class Committed:
    """One committed state."""

    number: int
    """Of the commit; 0 before the first."""
    parts: Mapping[str, Part]
    values: Mapping[str, Any]
    lies: Mapping[str, int]
    """Part to the number of the commit that wrote it last."""
    kept: Mapping[int, Mapping[str, int]]
    """Version of each kept snapshot to where its parts lie."""

    def digest(self) -> str:
        """SHA-256 of parts and values: equal states have equal digests, whatever led to them."""
        return hashlib.sha256(packing.pack(self.parts, self.values)).hexdigest()


class Archive:
    """The committed state, in memory and, where there is a journal, on disk."""

    def __init__(self, kept_in: journal.Journal | None) -> None:
        """Takes the journal; without one everything ends with the process."""
        self._journal = kept_in
        self.committed = Committed(0, {}, {}, {}, {})
        self._held: dict[int, dict[str, Part]] = {}
        """Parts of the newest kept snapshot and of the pinned one, by version."""

    def load(self) -> bool:
        """Reads the committed state from disk.

        Returns:
            Whether there is one.

        Raises:
            errors.IntegrityError: a file is missing or damaged.
        """
        number = self._journal.newest() if self._journal else None
        if number is None:
            return False
        _, values = self._read(number)
        lies = {str(name): int(lies) for name, lies in values[_LIES].items()}
        kept = {int(version): dict(part) for version, part in values[_KEPT].items()}
        parts = self._parts({(at, name) for name, at in lies.items()})
        self.committed = Committed(
            number,
            {name: parts[at, name] for name, at in sorted(lies.items())},
            values[_STATE],
            lies,
            kept,
        )
        return True

    def commit(
        self,
        parts: Mapping[str, Part],
        values: Mapping[str, Any],
        keep: Mapping[int, Collection[str]],
        taken: Collection[str] = (),
        pin: int = -1,
    ) -> None:
        """Makes parts and values the committed state.

        Args:
            parts: all of them, by name.
            values: plain ones.
            keep: version of each snapshot that is kept to the parts that belong to it; those of a
                version that was not kept before are the present ones.
            taken: names of what waited in the journal and is in this state.
            pin: version of the kept snapshot whose parts stay in memory.

        Raises:
            errors.OverloadedError: the disk is full; the earlier state stands.
            errors.UnavailableError: another failure of the disk; the same holds.
        """
        before = self.committed
        number = before.number + 1
        changed = [name for name in parts if not _same(parts[name], before.parts.get(name))]
        lies = {name: number if name in changed else before.lies[name] for name in sorted(parts)}
        kept = {
            version: before.kept.get(version) or {name: lies[name] for name in names}
            for version, names in keep.items()
        }
        if self._journal is not None:
            whole = {_LIES: lies, _KEPT: kept, _STATE: values}
            data = packing.pack({name: parts[name] for name in changed}, whole)
            needed = {*lies.values(), *(at for part in kept.values() for at in part.values())}
            self._journal.commit(number, data, needed - {number}, taken)
        # What did not change stays the same object, so that nothing is held twice.
        held = {name: parts[name] if name in changed else before.parts[name] for name in lies}
        self.committed = Committed(number, held, values, lies, kept)
        for version in kept.keys() - before.kept.keys():
            self._held[version] = {name: held[name] for name in kept[version]}
        stay = {pin, max(kept, default=pin)}
        self._held = {version: part for version, part in self._held.items() if version in stay}

    def parts_of(self, version: int) -> Mapping[str, Part]:
        """The parts of a kept snapshot.

        Raises:
            errors.NotFoundError: it is not kept, or not on disk.
            errors.IntegrityError: a file is missing or damaged.
        """
        if version in self._held:
            return self._held[version]
        lies = self.committed.kept.get(version)
        if lies is None:
            raise errors.NotFoundError(
                f"snapshot {version} is not kept; there are {sorted(self.committed.kept)}"
            )
        current = self.committed
        found = {name: current.parts[name] for name, at in lies.items() if current.lies[name] == at}
        elsewhere = {(at, name) for name, at in lies.items() if name not in found}
        if elsewhere and self._journal is None:
            raise errors.NotFoundError(f"snapshot {version} has its weights alone in memory")
        read = self._parts(elsewhere)
        return {name: found[name] if name in found else read[at, name] for name, at in lies.items()}

    def _parts(self, wanted: set[tuple[int, str]]) -> dict[tuple[int, str], Part]:
        by_number: dict[int, list[str]] = collections.defaultdict(list)
        for number, name in sorted(wanted):
            by_number[number].append(name)
        found: dict[tuple[int, str], Part] = {}
        for number, names in by_number.items():
            tensors, _ = self._read(number)
            for name in names:
                found[number, name] = tensors.get(name, {})  # One without tensors is not written.
        return found

    def _read(self, number: int) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, Any]]:
        if self._journal is None:
            raise errors.InternalError("hierarchy: there is no journal to read from")
        return packing.unpack(self._journal.read(number), f"hierarchy: state {number}")


def _same(one: Part, other: Part | None) -> bool:
    if other is None or one.keys() != other.keys():
        return False
    return all(value is other[name] or _equal(value, other[name]) for name, value in one.items())


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    # By bytes: a zero has two signs, and the state is exact.
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
