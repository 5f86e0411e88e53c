"""Submissions and snapshots <-> the bytes in which they travel and are kept.

Everything that comes from another process is checked here against the `Frame` of the hierarchy,
the modules and ranks that it was made with: past this module a wrong shape or a number that is
not finite is a defect of this project, not of a caller. Knows nothing of what layers do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from shared import errors
from shared.hierarchy import levels, messages, packing, weights
from shared.hierarchy.levels import Level

MOST_VALUE = 1e6
"""Larger weights and changes are refused: their products' norms would not fit into float32."""
_MOST_NAME = 200
_MOST_COUNT = 2**53
_MOST_MODULE_BYTES = 4096
"""For the name and the row of one module's tensors."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """What a hierarchy is made of, and so what fits into it."""

    shapes: Mapping[str, weights.Shape]
    specs: Mapping[Level, levels.Spec] = dataclasses.field(
        default_factory=lambda: dict(levels.DEFAULT_SPECS)
    )
    most_circuits: int = 64
    """In one submission."""

    @property
    def most_bytes(self) -> int:
        """Of a submission or a snapshot: more than any right one has."""
        ranks = sum(2 * spec.rank for spec in self.specs.values())
        ranks += self.most_circuits * self.specs[Level.AGENT].rank
        sides = sum(shape.in_features + shape.out_features for shape in self.shapes.values())
        sections = len(self.specs) + self.most_circuits
        return 4 * ranks * sides + 2**20 + len(self.shapes) * sections * _MOST_MODULE_BYTES


def submission_to_bytes(submission: messages.Submission) -> bytes:
    """The Arrow file of a submission; equal submissions give equal bytes.

    Raises:
        errors.InvalidInputError: a dtype or value that can't be written.
    """
    tensors: dict[str, packing.Named] = {}
    for kind, parts in (("shared", submission.shared), ("private", submission.private)):
        for level, part in parts.items():
            tensors[f"{kind}/{level}"] = named(part)
    values = {
        "kind": "submission",
        "agent": submission.agent,
        "sequence": submission.sequence,
        "version": submission.version,
        "examples": submission.examples,
        "circuits": put_circuits(submission.circuits, tensors),
    }
    return packing.pack(tensors, values)


def submission_from_bytes(data: bytes, frame: Frame) -> messages.Submission:
    """Reads a submission and checks all of it.

    Raises:
        errors.CapacityError: more bytes than any right submission has.
        errors.InvalidInputError: names what is wrong and where.
    """
    tensors, values = packing.unpack(data, "submission", frame.most_bytes)
    _kind(values, "submission")
    agent = _name(values, "agent", "submission")
    where = f"submission of {agent!r}"
    shared: dict[Level, weights.Delta] = {}
    private: dict[Level, weights.Weights] = {}
    circuits = take_circuits(values.get("circuits"), tensors, frame, where)
    for section, found in tensors.items():
        kind, _, level_name = section.partition("/")
        level = _level(level_name, f"{where}: section {section[:80]!r}")
        here = f"{where}: {section}"
        if kind == "shared" and level.is_shared:
            shared[level] = factors(found, frame.shapes, here, exactly=frame.specs[level].rank)
        elif kind == "private" and not level.is_shared:
            most = 2 * frame.specs[level].rank  # (A + dA)(B + dB) - A B
            private[level] = factors(found, frame.shapes, here, most=most)
        else:
            raise errors.InvalidInputError(f"{where}: {kind[:80]!r} is no section of {level}")
    for circuit in circuits:
        if circuit.agent != agent:
            raise errors.InvalidInputError(
                f"{where}: circuit {circuit.id!r} is of {circuit.agent!r}; send an agent's own"
            )
        if not circuit.id.startswith(f"{agent}:"):
            raise errors.InvalidInputError(
                f"{where}: circuit {circuit.id!r} must be named {agent}:NUMBER"
            )
        if circuit.level is not Level.AGENT:
            raise errors.InvalidInputError(
                f"{where}: circuit {circuit.id!r} lies in {circuit.level}; send the agent layer's"
            )
    return messages.Submission(
        agent=agent,
        sequence=_count(values, "sequence", where, least=1),
        version=_count(values, "version", where),
        shared=_ordered(shared),
        private=_ordered(private),
        circuits=circuits,
        examples=_count(values, "examples", where),
    )


def snapshot_to_bytes(snapshot: messages.Snapshot) -> bytes:
    """The Arrow file of a snapshot; equal snapshots give equal bytes."""
    tensors = {level.value: named(layer) for level, layer in snapshot.layers.items()}
    return packing.pack(tensors, {"kind": "snapshot", "version": snapshot.version})


def snapshot_from_bytes(data: bytes, frame: Frame) -> messages.Snapshot:
    """Reads a snapshot, which has all shared layers, and checks all of it.

    Raises:
        errors.CapacityError: more bytes than any right snapshot has.
        errors.InvalidInputError: names what is wrong and where.
    """
    tensors, values = packing.unpack(data, "snapshot", frame.most_bytes)
    _kind(values, "snapshot")
    found = {_level(name, "snapshot"): part for name, part in tensors.items()}
    if set(found) != set(levels.SHARED):
        raise errors.InvalidInputError(
            f"snapshot: has the layers {[*map(str, found)]}, it must have "
            f"{[*map(str, levels.SHARED)]}"
        )
    layers = {
        level: factors(found[level], frame.shapes, f"snapshot: {level}", frame.specs[level].rank)
        for level in levels.SHARED
    }
    return messages.Snapshot(_count(values, "version", "snapshot"), layers)


def put_circuits(
    circuits: Iterable[messages.Circuit], tensors: dict[str, packing.Named]
) -> list[dict[str, Any]]:
    """Adds the circuits' pieces to `tensors`; returns the rest of them, as plain values."""
    described = []
    for at, circuit in enumerate(circuits):
        tensors[f"circuit/{at:05d}"] = named(circuit.pieces)
        fields = {field.name: getattr(circuit, field.name) for field in _PLAIN_FIELDS}
        channels = {path: list(numbers) for path, numbers in circuit.channels.items()}
        described.append(fields | {"channels": channels})
    return described


def take_circuits(
    described: Any, tensors: dict[str, packing.Named], frame: Frame, where: str
) -> tuple[messages.Circuit, ...]:
    """Reads what `put_circuits` wrote, and takes the pieces out of `tensors`.

    Raises:
        errors.InvalidInputError: names what is wrong and where.
    """
    if not isinstance(described, list) or len(described) > frame.most_circuits:
        raise errors.InvalidInputError(
            f"{where}: its circuits must be a list of at most {frame.most_circuits}"
        )
    found = []
    for at, one in enumerate(described):
        here = f"{where}: circuit {at}"
        found.append(_circuit(one, tensors.pop(f"circuit/{at:05d}", {}), frame, here))
    if len({circuit.id for circuit in found}) < len(found):
        raise errors.InvalidInputError(f"{where}: two of its circuits have the same id")
    return tuple(found)


def named(layer: Mapping[str, weights.Factors]) -> packing.Named:
    """The tensors of a layer by name: `PATH.A`, (in, rank), and `PATH.B`, (rank, out)."""
    return {
        f"{path}.{side}": tensor
        for path, pair in layer.items()
        for side, tensor in (("A", pair.a), ("B", pair.b))
    }


def factors(
    tensors: Mapping[str, torch.Tensor],
    shapes: Mapping[str, weights.Shape],
    where: str,
    exactly: int | None = None,
    most: int | None = None,
) -> weights.Weights:
    """The layer of named tensors, modules in order, checked.

    Args:
        tensors: as `named` gives them.
        shapes: the modules that there must be, no more and no fewer.
        where: what to call it in errors.
        exactly: the rank that each must have.
        most: the rank that none may pass, where they may differ.

    Raises:
        errors.InvalidInputError: names the module and what is wrong with it.
    """
    wanted = {f"{path}.{side}" for path in shapes for side in "AB"}
    if missing := sorted(wanted - tensors.keys()):
        raise errors.InvalidInputError(f"{where}: {missing[0]!r} is missing ({len(missing)} are)")
    if unknown := sorted(tensors.keys() - wanted):
        raise errors.InvalidInputError(
            f"{where}: {unknown[0][:80]!r} is no module of this hierarchy ({len(unknown)} are not)"
        )
    layer = {}
    for path in sorted(shapes):
        pair = weights.Factors(tensors[f"{path}.A"], tensors[f"{path}.B"])
        _check_pair(pair, shapes[path], f"{where}: {path}", exactly, most)
        layer[path] = pair
    return layer


def _check_pair(
    pair: weights.Factors, shape: weights.Shape, where: str, exactly: int | None, most: int | None
) -> None:
    rank = exactly if exactly is not None else (pair.a.shape[-1] if pair.a.dim() == 2 else 0)
    if most is not None and not 1 <= rank <= most:
        raise errors.InvalidInputError(f"{where}: its rank is {rank}, it must be 1 to {most}")
    sides = (("A", pair.a, (shape.in_features, rank)), ("B", pair.b, (rank, shape.out_features)))
    for side, tensor, wanted in sides:
        if tensor.dtype != torch.float32:
            raise errors.InvalidInputError(
                f"{where}.{side}: its dtype is {tensor.dtype}, it must be torch.float32"
            )
        if tuple(tensor.shape) != wanted:
            raise errors.InvalidInputError(
                f"{where}.{side}: its shape is {tuple(tensor.shape)}, it must be {wanted}"
            )
        largest = float(tensor.abs().amax())
        if not largest <= MOST_VALUE:  # Also where it is not a number.
            raise errors.InvalidInputError(
                f"{where}.{side}: its largest value is {largest}; "
                f"all must be finite and at most {MOST_VALUE:g}"
            )


_PLAIN_FIELDS = tuple(
    field
    for field in dataclasses.fields(messages.Circuit)
    if field.name not in ("channels", "pieces")
)


def _circuit(
    values: Any, tensors: Mapping[str, torch.Tensor], frame: Frame, where: str
) -> messages.Circuit:
    wanted = {field.name for field in _PLAIN_FIELDS} | {"channels"}
    if not isinstance(values, dict) or values.keys() != wanted:
        raise errors.InvalidInputError(f"{where}: must have the fields {sorted(wanted)}")
    level = _level(values["level"], f"{where}: level")
    top = _level(values["top"], f"{where}: top")
    if levels.LEVELS.index(top) > levels.LEVELS.index(level):
        raise errors.InvalidInputError(f"{where}: its top {top} is below {level}, where it lies")
    channels = _channels(values["channels"], frame.specs[level].rank, frame, where)
    shapes = {path: frame.shapes[path] for path in channels}
    pieces = {
        path: pair
        for path, numbers in channels.items()
        for pair in factors(
            {name: one for name, one in tensors.items() if name[:-2] == path},
            {path: shapes[path]},
            where,
            exactly=len(numbers),
        ).values()
    }
    if len(tensors) != 2 * len(pieces):
        raise errors.InvalidInputError(f"{where}: has pieces of modules that it has no channels of")
    correlation = values["autocorrelation"]
    if type(correlation) not in (int, float) or not 0 <= correlation <= 1:
        raise errors.InvalidInputError(f"{where}: its autocorrelation must be a number, 0 to 1")
    for flag in ("fast_track", "critical"):
        if type(values[flag]) is not bool:
            raise errors.InvalidInputError(f"{where}: {flag} must be true or false")
    return messages.Circuit(
        id=_name(values, "id", where),
        agent=_name(values, "agent", where, least=0 if level.is_shared else 1),
        level=level,
        top=top,
        channels=channels,
        pieces=pieces,
        autocorrelation=float(correlation),
        hits=_count(values, "hits", where),
        fast_track=values["fast_track"],
        critical=values["critical"],
    )


def _channels(values: Any, rank: int, frame: Frame, where: str) -> dict[str, tuple[int, ...]]:
    if not isinstance(values, dict) or not values:
        raise errors.InvalidInputError(f"{where}: has no channels")
    channels = {}
    for path in sorted(values):
        numbers = values[path]
        if path not in frame.shapes:
            raise errors.InvalidInputError(f"{where}: {path[:80]!r} is no module of this hierarchy")
        fit = isinstance(numbers, list) and all(type(n) is int and 0 <= n < rank for n in numbers)
        if not fit or not numbers or len(set(numbers)) < len(numbers):
            raise errors.InvalidInputError(
                f"{where}: {path}: its channels must be different numbers from 0 to {rank - 1}"
            )
        channels[path] = tuple(numbers)
    return channels


def _kind(values: Mapping[str, Any], wanted: str) -> None:
    if values.get("kind") != wanted:
        raise errors.InvalidInputError(f"{wanted}: this is none, but {values.get('kind')!r:.80}")


def _level(name: Any, where: str) -> Level:
    try:
        return Level(name)
    except ValueError:
        raise errors.InvalidInputError(
            f"{where}: {str(name)[:80]!r} is no level; there are {[*map(str, Level)]}"
        ) from None


def _name(values: Mapping[str, Any], field: str, where: str, least: int = 1) -> str:
    name = values.get(field)
    if not isinstance(name, str) or not least <= len(name) <= _MOST_NAME or not name.isprintable():
        raise errors.InvalidInputError(
            f"{where}: its {field} must be {least} to {_MOST_NAME} printable characters"
        )
    return name


def _count(values: Mapping[str, Any], field: str, where: str, least: int = 0) -> int:
    count = values.get(field)
    if type(count) is not int or not least <= count < _MOST_COUNT:
        raise errors.InvalidInputError(
            f"{where}: its {field} must be a whole number from {least} to 2^53"
        )
    return count


def _ordered(parts: Mapping[Level, weights.Weights]) -> dict[Level, weights.Weights]:
    return {level: parts[level] for level in levels.LEVELS if level in parts}
