"""Who belongs to a hierarchy: names, owners, bases, and what a restart remembers."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

import pytest

from services.hierarchy import members
from shared import errors
from shared.hierarchy import levels, weights

SHAPES = {"layers.0.q_proj": weights.Shape(4, 6), "layers.0.v_proj": weights.Shape(4, 2)}
BASE = members.Base("f" * 64, SHAPES)


def opened(
    folder: pathlib.Path,
    most: int = 3,
    specs: Mapping[levels.Level, levels.Spec] = levels.DEFAULT_SPECS,
) -> members.Members:
    return members.Members(folder, specs, most, most_circuits=8, clock_ms=lambda: 1000)


def test_everything_is_remembered_when_the_service_starts_again(tmp_path: pathlib.Path) -> None:
    first = opened(tmp_path)
    assert first.base is None and first.frame is None
    first.join("ada", "node-1", "token:north", BASE)
    first.join("bob", "node-2", "", BASE)
    again = opened(tmp_path)
    assert again.agents == first.agents and again.base == BASE
    assert again.frame == first.frame and again.frame is not None
    assert again.frame.shapes == SHAPES and again.frame.most_circuits == 8


def test_agent_keeps_its_age_when_it_joins_from_another_node(tmp_path: pathlib.Path) -> None:
    times = iter([5, 9])
    found = members.Members(tmp_path, levels.DEFAULT_SPECS, 3, 8, lambda: next(times))
    found.join("ada", "node-1", "", BASE)
    assert found.join("ada", "node-2", "", BASE) == members.Member("ada", "node-2", "", 5)


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", ".x", "x" * 65, "ä", "a/b", "a\n"])
def test_agent_is_refused_when_its_name_is_none(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(errors.InvalidInputError, match="name"):
        opened(tmp_path).join(name, "node", "", BASE)
    assert not list(tmp_path.iterdir())


def test_another_owner_is_refused_when_the_agent_is_somebodys(tmp_path: pathlib.Path) -> None:
    found = opened(tmp_path)
    found.join("ada", "node", "token:north", BASE)
    for owner in ("token:south", ""):
        with pytest.raises(errors.ForbiddenError, match="another token"):
            found.join("ada", "node", owner, BASE)
        with pytest.raises(errors.ForbiddenError, match="another token"):
            found.check("ada", owner)
    assert found.check("ada", "token:north").node == "node"
    with pytest.raises(errors.PreconditionError, match="join first"):
        found.check("bob", "token:north")


def test_agent_belongs_to_the_first_token_when_it_joined_without_one(
    tmp_path: pathlib.Path,
) -> None:
    found = opened(tmp_path)
    found.join("ada", "node", "", BASE)
    assert found.check("ada", "token:south").owner == ""
    found.join("ada", "node", "token:north", BASE)
    with pytest.raises(errors.ForbiddenError):
        opened(tmp_path).check("ada", "token:south")


def test_agent_is_refused_when_its_base_is_another(tmp_path: pathlib.Path) -> None:
    found = opened(tmp_path)
    found.join("ada", "node", "", BASE)
    with pytest.raises(errors.BaseModelMismatchError, match="eeee"):
        found.join("bob", "node", "", dataclasses.replace(BASE, fingerprint="e" * 64))
    for shapes in ({"layers.0.q_proj": SHAPES["layers.0.q_proj"]}, SHAPES | {
        "layers.0.q_proj": weights.Shape(5, 6)
    }):  # fmt: skip
        with pytest.raises(errors.BaseModelMismatchError, match=r"layers\.0\."):
            found.join("bob", "node", "", dataclasses.replace(BASE, shapes=shapes))
    assert [member.agent for member in found.agents] == ["ada"]


@pytest.mark.parametrize(
    "base",
    [
        members.Base("", SHAPES),
        members.Base("f", {}),
        members.Base("f", {"": weights.Shape(1, 1)}),
        members.Base("f", {"q": weights.Shape(0, 1)}),
        members.Base("f", {"q": weights.Shape(1, 2**40)}),
    ],
)
def test_base_is_refused_when_it_can_be_none(tmp_path: pathlib.Path, base: members.Base) -> None:
    with pytest.raises(errors.InvalidInputError):
        opened(tmp_path).join("ada", "node", "", base)
    assert opened(tmp_path).base is None


def test_agent_is_refused_when_there_are_too_many(tmp_path: pathlib.Path) -> None:
    found = opened(tmp_path, most=1)
    found.join("ada", "node", "", BASE)
    with pytest.raises(errors.CapacityError, match=r"limits\.agents"):
        found.join("bob", "node", "", BASE)
    assert found.join("ada", "elsewhere", "", BASE).node == "elsewhere"


def test_one_owner_can_not_take_the_places_of_all(tmp_path: pathlib.Path) -> None:
    found = members.Members(tmp_path, levels.DEFAULT_SPECS, 10, 8, lambda: 0, most_per_owner=2)
    for agent in ("a", "b"):
        found.join(agent, "node", "token:north", BASE)
    found.join("mine", "node", "", BASE)
    for agent in ("c", "mine"):
        with pytest.raises(errors.CapacityError, match="agents_per_owner"):
            found.join(agent, "node", "token:north", BASE)
    assert found.join("a", "elsewhere", "token:north", BASE).node == "elsewhere"
    for agent in ("d", "e"):
        found.join(agent, "node", "token:south", BASE)
    for agent in ("f", "g", "h"):
        found.join(agent, "node", "", BASE)


def test_base_is_refused_when_its_layers_would_not_fit(tmp_path: pathlib.Path) -> None:
    # (4 + 6 + 4 + 2) sides, ranks of 112, 4 bytes.
    for most_bytes in (7167, 7168):
        found = members.Members(tmp_path, levels.DEFAULT_SPECS, 3, 8, lambda: 0, most_bytes)
        if most_bytes == 7167:
            with pytest.raises(errors.CapacityError, match=r"7168 bytes.*memory_mib"):
                found.join("ada", "node", "", BASE)
            assert not list(tmp_path.iterdir())
    assert found.join("ada", "node", "", BASE)


def test_start_is_refused_when_ranks_are_no_longer_those_it_was_made_with(
    tmp_path: pathlib.Path,
) -> None:
    opened(tmp_path).join("ada", "node", "", BASE)
    other = dict(levels.DEFAULT_SPECS) | {levels.Level.SWARM: levels.Spec(3, 0.7)}
    with pytest.raises(errors.ConfigError, match=r"hierarchy\.layers.*swarm 3.*swarm 16"):
        opened(tmp_path, specs=other)
    slower = dict(levels.DEFAULT_SPECS) | {levels.Level.SWARM: levels.Spec(16, 0.8)}
    frame = opened(tmp_path, specs=slower).frame
    assert frame is not None and frame.specs[levels.Level.SWARM].inertia == 0.8


@pytest.mark.parametrize("name", ["frame.json", "agents.json"])
def test_start_is_refused_when_a_file_is_no_longer_what_it_was(
    tmp_path: pathlib.Path, name: str
) -> None:
    opened(tmp_path).join("ada", "node", "", BASE)
    (tmp_path / name).write_text("{")
    with pytest.raises(errors.ConfigError, match=name):
        opened(tmp_path)
