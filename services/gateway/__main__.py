"""The command line: `skillmesh COMMAND`, or `python -m services.gateway COMMAND`."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import tomllib
from typing import Annotated

import typer

from services.gateway.cluster import cluster
from services.gateway.command_line import (
    card_commands,
    cluster_commands,
    learning_commands,
    options,
    task_commands,
)
from shared import settings as config
from shared import terminal

NAME = "skillmesh"
app = options.group(is_root=True)


def _version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"{NAME} {version()}")
        raise typer.Exit


def version() -> str:
    """Of what runs here: of the checkout, or of the installed package."""
    project = cluster.ROOT / "pyproject.toml"
    if project.is_file():
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])
    return importlib.metadata.version(NAME)


@app.callback()
def before(
    config_file: Annotated[
        pathlib.Path | None,
        typer.Option(
            "--config",
            help="In place of config.yaml here, or the file that SKILLMESH_CONFIG names.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Tell the version.")
    ] = False,
) -> None:
    """Ask, teach and run a local skillmesh cluster."""
    if config_file is not None:
        with terminal.exit_codes():
            if not config_file.is_file():
                raise terminal.UsageError(f"--config: there is no file {config_file}")
        # Whatever reads the configuration in this process, or is started by it, sees that one.
        os.environ[config.CONFIG_VARIABLE] = str(config_file.absolute())


learning_commands.register(app)
card_commands.register(app)
app.add_typer(task_commands.tasks, name="tasks")
cluster_commands.register(app)

if __name__ == "__main__":
    app(prog_name=NAME)
