"""`skillmesh tasks`, `nodes`, and what all commands do that meet nobody or are called wrongly."""

from __future__ import annotations

import asyncio
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
import typer.testing

from services.gateway import __main__ as command_line
from services.gateway.command_line import completing
from shared import errors
from shared.cards import format as formats
from shared.pb import (
    cards_pb2,
    cards_pb2_grpc,
    factory_pb2,
    factory_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    types_pb2,
)
from shared.rpc import client
from tests import fakes
from tests.contract.command_runs import Commands, documented, meeting

ODD = "[red]a\tb[/red]\n$(id) 'ü\""


class Factory(factory_pb2_grpc.FactoryServicer):
    """Tasks by id; one that is listed goes on by one stage each time."""

    def __init__(self) -> None:
        self.tasks = {
            "t1": types_pb2.TrainingTask(
                id="t1", status=types_pb2.TRAINING, trigger_query=ODD, progress=0.5
            ),
            "t2": types_pb2.TrainingTask(
                id="t2", status=types_pb2.FAILED, trigger_query="Who?", error="no [teacher]"
            ),
        }
        self.keys: list[str] = []
        self.ends_after = 0

    async def ListTasks(
        self, request: factory_pb2.ListTasksRequest, context: Any
    ) -> factory_pb2.ListTasksResponse:
        self.ends_after -= 1
        if self.ends_after == 0:
            self.tasks["t1"].status = types_pb2.COMPLETED
            self.tasks["t1"].card = "who@1"
        return factory_pb2.ListTasksResponse(tasks=self.tasks.values())

    async def GetTask(
        self, request: factory_pb2.GetTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        return self._found(request.id)

    async def CancelTask(
        self, request: factory_pb2.CancelTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        task = self._found(request.id)
        if task.status == types_pb2.FAILED:
            raise errors.PreconditionError(f"task {task.id} has FAILED already")
        task.status = types_pb2.CANCELLED
        return task

    async def RetryTask(
        self, request: factory_pb2.RetryTaskRequest, context: Any
    ) -> types_pb2.TrainingTask:
        self.keys.append(request.idempotency_key)
        task = self._found(request.id)
        new = types_pb2.TrainingTask(
            id="t3", status=types_pb2.PENDING, trigger_query=task.trigger_query, retry_of=task.id
        )
        self.tasks["t3"] = new
        return new

    async def WatchTask(self, request: factory_pb2.WatchTaskRequest, context: Any) -> Any:
        yield types_pb2.TrainingTask(id=request.id, status=types_pb2.DISTILLING)
        yield types_pb2.TrainingTask(
            id=request.id, status=types_pb2.FAILED, error="no teacher", retry_of="t2"
        )

    def _found(self, task_id: str) -> types_pb2.TrainingTask:
        if task_id not in self.tasks:
            raise errors.NotFoundError(f"there is no task {task_id!r}")
        return self.tasks[task_id]


class Node(inference_pb2_grpc.InferenceServicer):
    """One node."""

    async def GetNodeStatus(
        self, request: inference_pb2.GetNodeStatusRequest, context: Any
    ) -> inference_pb2.NodeStatus:
        return inference_pb2.NodeStatus(
            node_id="node-1",
            base_model="embedded",
            base_fingerprint="f" * 64,
            resident=["ann@1"],
            served=["ann@1", "bob@2"],
            pinned=["ann@1"],
            revision=5,
            store_connected=True,
            running=2,
            most_rows=8,
            waiting=1,
            queue=256,
            swaps=[inference_pb2.SwapRecord(card="ann@1", fetch_ms=3, swap_ms=4)],
        )


class CardStore(cards_pb2_grpc.CardStoreServicer):
    """Knows the node, and one more that said nothing of where it answers."""

    def __init__(self) -> None:
        self.is_stuck = False

    async def ListResidency(
        self, request: cards_pb2.ListResidencyRequest, context: Any
    ) -> cards_pb2.ListResidencyResponse:
        nodes = [
            cards_pb2.NodeResidency(node_id="node-1", revision=5, reported_at_ms=1000),
            cards_pb2.NodeResidency(node_id="node-2", revision=4, reported_at_ms=2000),
        ]
        return cards_pb2.ListResidencyResponse(nodes=nodes)

    async def GetStoreStatus(
        self, request: cards_pb2.GetStoreStatusRequest, context: Any
    ) -> cards_pb2.StoreStatus:
        return cards_pb2.StoreStatus(revision=7)

    async def ListCards(
        self, request: cards_pb2.ListCardsRequest, context: Any
    ) -> cards_pb2.ListCardsResponse:
        while self.is_stuck:
            await asyncio.sleep(0.01)
        cards = [
            cards_pb2.CardRecord(name=name, digest=digest * 64, aliases=["latest"])
            for name, digest in (("ann", "a"), ("annette", "b"), ("bob", "c"))
        ]
        found = [card for card in cards if request.name in ("", card.name)]
        return cards_pb2.ListCardsResponse(cards=found)


@pytest.fixture
def factory() -> Factory:
    return Factory()  # type: ignore[abstract]


@pytest.fixture
def store() -> CardStore:
    return CardStore()  # type: ignore[abstract]


@pytest.fixture
def commands(
    factory: Factory, store: CardStore, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[Commands]:
    def add(server: Any) -> str:
        factory_pb2_grpc.add_FactoryServicer_to_server(factory, server)
        inference_pb2_grpc.add_InferenceServicer_to_server(Node(), server)  # type: ignore[abstract]
        cards_pb2_grpc.add_CardStoreServicer_to_server(store, server)
        return inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

    with meeting(add, monkeypatch, tmp_path) as found:
        yield found


def test_tasks_are_listed_for_programs_and_people(commands: Commands) -> None:
    told = commands.json("tasks")
    assert [task["id"] for task in told] == ["t1", "t2"]
    assert set(told[0]) == documented("tasks") and told[0]["trigger_query"] == ODD
    printed = commands.run("tasks")
    assert "[red]a" in printed and "no [teacher]" in printed


def test_task_is_shown_for_programs_and_people(commands: Commands) -> None:
    assert commands.json("tasks", "show", "t1")["status"] == "TRAINING"
    printed = commands.run("tasks", "show", "t1")
    assert "TRAINING, 50% of it" in printed and "[/red]" in printed
    assert "no [teacher]" in commands.run("tasks", "show", "t2")
    for odd in (ODD, "../t1", "t1;"):
        assert "there is no task" in commands.run("tasks", "show", odd, code=1)
    assert "id of a task" in commands.run("tasks", "show", "", code=2)


def test_task_is_cancelled_and_retried(factory: Factory, commands: Commands) -> None:
    assert commands.json("tasks", "cancel", "t1")["status"] == "CANCELLED"
    assert "FAILED already" in commands.run("tasks", "cancel", "t2", code=1)
    told = commands.json("tasks", "retry", "t2")
    assert (told["id"], told["retry_of"]) == ("t3", "t2")
    assert "task t3 (again for t2): pending" in commands.run("tasks", "retry", "t2")
    # Whoever asks twice means two retries; each command has a key of its own.
    assert len(set(factory.keys)) == 2
    printed = commands.run("tasks", "retry", "t2", "--wait", code=1)
    assert "task t3: distilling" in printed and "t3 is FAILED: no teacher" in printed


def test_watching_prints_a_line_for_each_change_and_ends_with_the_tasks(
    factory: Factory, commands: Commands
) -> None:
    factory.ends_after = 2
    lines = commands.run("tasks", "--watch").splitlines()
    # In the order in which they came to be: the factory lists the newest first.
    assert [line.split("\t")[:2] for line in lines] == [
        ["t2", "FAILED"],
        ["t1", "TRAINING"],
        ["t1", "COMPLETED"],
    ]
    assert "[red]a b[/red] $(id)" in lines[1]
    printed = commands.run("tasks", "--watch", "--json")
    assert {json.loads(line)["id"] for line in printed.splitlines()} == {"t1", "t2"}


@pytest.mark.usefixtures("patient")
def test_nodes_tell_load_cards_and_how_far_they_follow(commands: Commands) -> None:
    first, second = commands.json("nodes")
    assert set(first) == documented("nodes")
    assert (first["answers"], first["behind"], first["running"]) == (True, 2, 2)
    assert first["swaps"] == [{"card": "ann@1", "fetch_ms": 3.0, "swap_ms": 4.0}]
    assert (second["node_id"], second["answers"], second["behind"]) == ("node-2", False, 3)
    assert second["running"] is None and second["address"] == ""
    printed = commands.run("nodes")
    for wanted in ("2 behind", "1 of 2 in memory, 1 pinned", "2 of 8", "1 of 256", "4 ms to swap"):
        assert wanted in printed


def test_node_that_is_silent_makes_the_command_fail(commands: Commands) -> None:
    commands.set("INFERENCE__ADDRESS", "127.0.0.1:1")
    assert "no answer from 127.0.0.1:1" in commands.run("nodes", code=1)


@pytest.mark.usefixtures("patient")
def test_names_are_completed_from_the_running_cluster(commands: Commands) -> None:
    assert completing.cards("ann") == ["ann", "annette"]
    assert completing.cards("ann@") == ["ann@latest", f"ann@{'a' * 64}"]
    assert completing.cards("[x") == []
    assert completing.tasks("t") == ["t1", "t2"]


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("skillmesh cards show an", ["ann", "annette"]),
        ("skillmesh tasks retry t", ["t1", "t2"]),
        ("skillmesh prom", ["promote"]),
        ("skillmesh export ann x --a", ["--as"]),
    ],
)
def test_shell_is_offered_names_and_commands(
    commands: Commands, line: str, offered: list[str]
) -> None:
    environment = {
        "_SKILLMESH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    result = typer.testing.CliRunner().invoke(
        command_line.app, [], prog_name=command_line.NAME, env=environment
    )
    assert result.stdout.split() == offered, result.output


def test_completion_offers_nothing_and_hurries_when_nobody_answers(
    commands: Commands, tmp_path: pathlib.Path
) -> None:
    commands.set("CARD_STORE__ADDRESS", "127.0.0.1:1")
    assert completing.cards("") == []
    commands.set("MISSPELT__KEY", "1")
    assert completing.cards("") == []


def test_completion_does_not_wait_when_the_store_is_slow(
    store: CardStore, commands: Commands
) -> None:
    store.is_stuck = True
    began = time.monotonic()
    assert completing.cards("") == []
    # A call that nobody hurries ends after that.
    assert time.monotonic() - began < client.DEFAULT_DEADLINE_S
    store.is_stuck = False


def test_every_command_says_that_nobody_answers_when_the_cluster_is_away(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    away = Commands(monkeypatch, tmp_path)
    file = tmp_path / "x.lora.arrow"
    formats.LoRAFormat.save(fakes.tiny_card("x"), file)
    away.set("SECURITY__REQUIRE_SIGNATURES", "false")
    away.set("HIERARCHY__ENABLED", "true")
    for command in (
        "ask Who?",
        "explain Who?",
        "teach --topic law",
        "correct Who? Ann",
        "tell --agent ada --question q --answer a",
        "agents",
        "nightly",
        "cards",
        "cards show x",
        "promote x 123456",
        "rollback x",
        "revoke x --yes",
        f"export x {tmp_path / 'out'}",
        f"import {file}",
        "tasks",
        "tasks --watch",
        "tasks show t1",
        "tasks cancel t1",
        "tasks retry t1",
        "nodes",
        "status",
    ):
        printed = away.run(*command.split(), code=3)
        assert "make up" in printed, (command, printed)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("cards", "fly"),
        ("cards", "--fly"),
        ("promote", "x"),
        ("export", "x"),
        ("tasks", "show"),
        ("ask",),
        ("explain", "q", "--top-k", "0"),
        ("teach",),
        ("correct", "Who?"),
        ("teach", "--topic", "a", "--repo", "b"),
        ("logs", "--service", "nobody"),
        ("--config", "/nowhere/config.yaml", "cards"),
    ],
)
def test_wrong_usage_has_a_code_of_its_own(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    assert Commands(monkeypatch, tmp_path).run(*arguments, code=2)


def test_other_configuration_is_read_when_it_is_named(
    commands: Commands, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKILLMESH_CONFIG", "set so that it is put back after the test")
    path = tmp_path / "other config.yaml"
    path.write_text("router: {adress: 127.0.0.1:1}\n")
    assert "adress" in commands.run("--config", str(path), "tasks", code=1)
    path.write_text("{}")
    assert "t1" in commands.run("--config", str(path), "tasks")


def test_version_and_exit_codes_are_told(commands: Commands) -> None:
    assert commands.run("--version").startswith("skillmesh 0.")
    assert "3 a service can't be reached" in " ".join(commands.run("--help").split())


def test_every_command_documents_its_json() -> None:
    def leaves(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
        for name, command in group.commands.items():
            yield (*path, name)
            if hasattr(command, "commands"):
                yield from leaves(command, *path, name)

    for path in leaves(typer.main.get_command(command_line.app)):
        found: Any = typer.main.get_command(command_line.app)
        for name in path:
            found = found.commands[name]
        assert "JSON: " in found.help, path
        assert any("--json" in option.opts for option in found.params), path
