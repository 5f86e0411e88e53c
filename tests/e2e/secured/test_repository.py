"""A code base in a real cluster: taught by the command, served, completed from, learned again.

Every service is a process and nothing is faked. The tests run in order.
"""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
from typing import Any

import pytest

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from shared import errors
from shared.flight import samples
from shared.pb import inference_pb2, inference_pb2_grpc
from shared.rpc import client
from shared.security import protection as protections
from tests.e2e.secured import commands

UNITS = (
    ("metre", "foot", "0.3048"), ("litre", "pint", "0.568"), ("gram", "ounce", "28.35"),
    ("joule", "calorie", "4.184"), ("pascal", "bar", "100_000.0"), ("watt", "horsepower", "745.7"),
    ("second", "minute", "60.0"), ("kelvin", "rankine", "0.5556"),
)  # fmt: skip


def module(unit: str, other: str, factor: str) -> str:
    """One file of the repository, in the style of all of them."""
    return f'''"""Conversions between {unit}s and {other}s."""

from __future__ import annotations

FACTOR = {factor}
"""{unit}s in one {other}."""


def {other}s_to_{unit}s(values: list[float]) -> list[float]:
    """Converts {other}s to {unit}s.

    Raises:
        ValueError: one of them is negative.
    """
    checked = check_{other}s(values)
    return [value * FACTOR for value in checked]


def {unit}s_to_{other}s(values: list[float]) -> list[float]:
    """Converts {unit}s to {other}s."""
    return [value / FACTOR for value in values if value >= 0.0]


def check_{other}s(values: list[float]) -> list[float]:
    """The values, none of which may be negative."""
    for place, value in enumerate(values):
        if value < 0.0:
            raise ValueError(f"values[{{place}}] is {{value}} {other}s; give none below zero")
    return list(values)


class {other.capitalize()}Meter:
    """Counts {other}s as they come and tells them in {unit}s."""

    def __init__(self, limit: float) -> None:
        """Takes how many {other}s are too many."""
        self.limit = limit
        self.total = 0.0

    def add(self, value: float) -> float:
        """Adds some {other}s; returns all of them in {unit}s."""
        self.total += check_{other}s([value])[0]
        return {other}s_to_{unit}s([self.total])[0]

    def is_full(self) -> bool:
        """Whether there are more {other}s than the limit."""
        return self.total > self.limit
'''


def commit(path: pathlib.Path, message: str) -> str:
    """Commits all that is there; returns the commit's id."""
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    for command in (("add", "."), (*who, "commit", "-q", "-m", message)):
        subprocess.run(["git", "-C", str(path), *command], check=True)
    told = subprocess.run(
        ["git", "-C", str(path), "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return told.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("code") / "unit-conversions"
    path.mkdir()
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    for unit, other, factor in UNITS:
        (path / f"{other}.py").write_text(module(unit, other, factor))
    (path / "secret.py").write_text('TOKEN = "ghp_' + "a1B2" * 9 + '"\n')
    commit(path, "Conversions")
    return path


def complete(local: cluster.Cluster, **fields: Any) -> inference_pb2.CompleteResponse:
    async def call() -> inference_pb2.CompleteResponse:
        settings = local.settings
        protection = protections.Protection.configured(settings)
        async with client.channel(settings.inference.address, protection=protection) as channel:
            stub: Any = inference_pb2_grpc.InferenceStub(channel)
            return await client.call(
                stub.Complete, inference_pb2.CompleteRequest(**fields), deadline_s=60.0
            )

    return asyncio.run(call())


PREFIX = module("metre", "furlong", "201.168").partition("    return [value * FACTOR")[0]


@pytest.fixture(scope="module")
def taught(local: cluster.Cluster, repository: pathlib.Path) -> Any:
    """What `teach-repo` told; before it only the bare base could complete anything."""
    bare = complete(local, prefix=PREFIX, max_new_tokens=8)
    assert bare.card == "" and bare.new_tokens > 0
    return commands.run(local, "teach-repo", path=str(repository))


def test_repository_is_learned_when_the_command_asks_for_it(
    local: cluster.Cluster, repository: pathlib.Path, taught: Any
) -> None:
    task, code_base, card = taught["task"], taught["code_base"], taught["card"]
    assert task["status"] == domain.COMPLETED
    assert (local.state_dir / "repositories" / "unit-conversions").resolve() == repository
    assert code_base["repository"] == "unit-conversions"
    assert code_base["files"] >= len(UNITS) and code_base["chunks"] >= 2 * len(UNITS)
    assert len(code_base["samples"]) >= 4 and sum(code_base["samples"].values()) >= 50
    assert 0 < code_base["held_out"] < sum(code_base["samples"].values())
    assert card["card"].startswith("specialist-unit-conversions@")
    assert card["route"] == "specialist_local"
    perplexity = next(row for row in card["gate"] if row["name"] == "perplexity")
    assert perplexity["passed"] and perplexity["right"] > 0
    assert taught["sample"]["path"].endswith(".py") and taught["sample"]["output"]
    kept = pathlib.Path(code_base["folder"], "samples.arrow").read_bytes()
    assert {one.kind for one in samples.from_bytes(kept)} == set(code_base["samples"])
    assert b"ghp_a1B2" not in kept


def test_card_completes_code_and_answers_no_question(local: cluster.Cluster, taught: Any) -> None:
    card = taught["card"]["card"]
    for fields in ({}, {"model": "specialist_local"}, {"model": "specialist-unit-conversions"}):
        found = complete(local, prefix=PREFIX, max_new_tokens=24, **fields)
        assert found.card == card and found.text
    assert complete(local, prefix=PREFIX, model="base", max_new_tokens=8).card == ""
    with pytest.raises(errors.NotFoundError):
        complete(local, prefix=PREFIX, model="specialist-nobody")
    asked = commands.run(local, "ask", q="How are furlongs converted to metres?")
    assert asked["card"] != card

    async def fixed() -> domain.Answer:
        async with peers.connected(local.settings) as services:
            question = f"Fix this function.\n\n{PREFIX[-300:]}"
            return await services.inference.ask(
                question, no_learning=True, model="specialist_local"
            )

    assert asyncio.run(fixed()).card == card


def test_same_commit_is_not_learned_again_at_night_and_a_new_one_is(
    local: cluster.Cluster, repository: pathlib.Path, taught: Any
) -> None:
    commands.run(local, "nightly")
    tasks = commands.run(local, "tasks")
    assert [task["id"] for task in tasks if task["repository"]] == [taught["task"]["id"]]
    (repository / "acre.py").write_text(module("hectare", "acre", "0.4047"))
    moved_on = commit(repository, "Acres")
    [skill] = commands.run(local, "nightly")

    async def learned() -> domain.Task:
        async with peers.connected(local.settings) as services:
            return await services.factory.until_ended(skill["task_ids"][0])

    task = asyncio.run(learned())
    assert (task.status, task.error) == (domain.COMPLETED, "")
    assert (task.repository, task.commit_id, task.priority) == ("unit-conversions", moved_on, 1)
    assert complete(local, prefix=PREFIX, max_new_tokens=8).card == task.card
    assert task.card != taught["card"]["card"]
