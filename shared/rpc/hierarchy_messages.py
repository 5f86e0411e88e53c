"""What the hierarchy and its nodes say to one another <-> protobuf.

Used by both sides, so that each field is written and read in one place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from shared import errors
from shared.hierarchy import levels, messages, weights
from shared.pb import hierarchy_pb2

_MARKS = {
    messages.Mark.FAST_TRACK: hierarchy_pb2.FAST_TRACK,
    messages.Mark.NORMAL: hierarchy_pb2.NORMAL,
    messages.Mark.CONFLICT: hierarchy_pb2.CONFLICT,
}
_BY_NUMBER = {number: mark for mark, number in _MARKS.items()}


def join_request(
    agent: str, node: str, base_fingerprint: str, shapes: Mapping[str, weights.Shape]
) -> hierarchy_pb2.JoinRequest:
    """The message by which a node makes an agent known."""
    return hierarchy_pb2.JoinRequest(
        agent=agent,
        node=node,
        base_fingerprint=base_fingerprint,
        modules=[
            hierarchy_pb2.ModuleShape(
                path=path, in_features=shape.in_features, out_features=shape.out_features
            )
            for path, shape in shapes.items()
        ],
    )


def shapes(modules: Iterable[hierarchy_pb2.ModuleShape]) -> dict[str, weights.Shape]:
    """The modules of a message, by path.

    Raises:
        errors.InvalidInputError: one comes twice.
    """
    found: dict[str, weights.Shape] = {}
    for module in modules:
        if module.path in found:
            raise errors.InvalidInputError(f"modules: {module.path[:80]!r} comes twice")
        found[module.path] = weights.Shape(module.in_features, module.out_features)
    return found


def spec_messages(
    specs: Mapping[levels.Level, levels.Spec],
) -> list[hierarchy_pb2.LevelSpec]:
    """The messages of all layers' specs."""
    return [
        hierarchy_pb2.LevelSpec(level=level, rank=spec.rank, inertia=spec.inertia)
        for level, spec in specs.items()
    ]


def specs(told: Iterable[hierarchy_pb2.LevelSpec]) -> dict[levels.Level, levels.Spec]:
    """The specs of messages.

    Raises:
        errors.InvalidInputError: there is no such level.
    """
    return {level(one.level): levels.Spec(one.rank, one.inertia) for one in told}


def level(name: str) -> levels.Level:
    """The level of a name.

    Raises:
        errors.InvalidInputError: there is none.
    """
    try:
        return levels.Level(name)
    except ValueError:
        raise errors.InvalidInputError(
            f"level {name[:80]!r}: choose one of {', '.join(levels.Level)}"
        ) from None


def settlement_message(told: messages.Settlement) -> hierarchy_pb2.AgentSettlement:
    """The message of a settlement."""
    return hierarchy_pb2.AgentSettlement(
        agent=told.agent,
        sequence=told.sequence,
        version=told.version,
        mark=_MARKS[told.mark],
        alignment=told.alignment,
        factors={str(level): by for level, by in told.factors.items()},
        moved=told.moved,
        waiting=told.waiting,
        refused=told.refused,
    )


def settlement(told: hierarchy_pb2.AgentSettlement) -> messages.Settlement:
    """The settlement of a message; a mark of a newer hierarchy is a normal one."""
    return messages.Settlement(
        agent=told.agent,
        sequence=told.sequence,
        version=told.version,
        mark=_BY_NUMBER.get(told.mark, messages.Mark.NORMAL),
        alignment=told.alignment,
        factors={level(name): by for name, by in sorted(told.factors.items())},
        moved=tuple(told.moved),
        waiting=tuple(told.waiting),
        refused=told.refused,
    )
