"""Runs commands of `skillmesh` in this process, and what the tests of them have in common."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer.main
import typer.testing

from services.gateway import __main__ as command_line
from tests.contract import served_apart

SERVICES = ("ROUTER", "FACTORY", "DISTILLER", "TRAINER", "CARD_STORE", "INFERENCE", "HIERARCHY")
NOBODY = "127.0.0.1:1"


class Commands:
    """The command line against services that the test names; all others are away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state_dir: pathlib.Path) -> None:
        self._monkeypatch = monkeypatch
        self.state_dir = state_dir
        monkeypatch.delenv("SKILLMESH_CONFIG", raising=False)
        monkeypatch.setenv("COLUMNS", "250")
        self.set("CLUSTER__STATE_DIR", str(state_dir))
        for service in SERVICES:
            self.set(f"{service}__ADDRESS", NOBODY)

    def set(self, name: str, value: str) -> None:
        """A setting, as the environment says it."""
        self._monkeypatch.setenv(f"SKILLMESH__{name}", value)

    def run(self, *arguments: str, code: int = 0, typed: str = "") -> str:
        """What a command prints, on either stream; it must end with that exit code."""
        result = typer.testing.CliRunner().invoke(command_line.app, list(arguments), input=typed)
        assert result.exit_code == code, (result.output, result.exception)
        return str(result.output)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The value that a command prints with `--json`; nothing else may be on stdout."""
        result = typer.testing.CliRunner().invoke(command_line.app, [*arguments, "--json"])
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads(result.stdout)


@contextlib.contextmanager
def meeting(
    add: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch, state_dir: pathlib.Path
) -> Iterator[Commands]:
    """Commands that meet a factory, a node and a card store, all at one port."""
    with served_apart.served(add) as port:
        found = Commands(monkeypatch, state_dir)
        for service in ("FACTORY", "INFERENCE", "CARD_STORE"):
            found.set(f"{service}__ADDRESS", f"127.0.0.1:{port}")
        yield found


def documented(*command: str) -> set[str]:
    """The keys that a command's help names for its JSON, those that it refers to included."""
    found: Any = typer.main.get_command(command_line.app)
    for name in command:
        found = found.commands[name]
    text = " ".join(found.help.split()).split("JSON: ")[1]
    # What follows the keys says when they are there.
    text = text.split(". ")[0].split("; ")[0]
    keys: set[str] = set()
    for referred, own in (
        ("the object of the list", command[0]),
        ("the object of `cards`", "cards"),
    ):
        if referred in text:
            keys |= documented(own)
            text = text.split(referred)[1]
    words = (word.strip(" .") for word in re.split(r"\bwith\b|\band\b|,", text))
    return keys | {word for word in words if re.fullmatch(r"[a-z_0-9]+", word)}
