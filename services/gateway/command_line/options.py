"""Arguments that several commands have.

Each may come from the environment as SKILLMESH_ARG_NAME: that is how the Makefile hands over what
people type, without any shell in between that could interpret it.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.gateway.command_line import completing
from shared import terminal


def _from_make(name: str) -> dict[str, Any]:
    return {"envvar": f"SKILLMESH_ARG_{name}", "show_envvar": False}


def option(*names: str, make: str, help: str) -> Any:
    """An option that the Makefile may hand over.

    Args:
        names: such as `--wait`; by default that of the parameter.
        make: its name in `make`.
        help: one line.
    """
    return typer.Option(*names, help=help, **_from_make(make))


def argument(make: str, help: str) -> Any:
    """An argument that the Makefile may hand over; see `option`."""
    return typer.Argument(help=help, **_from_make(make))


def group(is_root: bool = False) -> typer.Typer:
    """A command that has commands of its own; its callback tells what for.

    Args:
        is_root: it is the command line itself, which also installs the completion of shells.
    """
    return typer.Typer(
        add_completion=is_root,
        no_args_is_help=is_root,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        epilog=terminal.EXIT_CODES,
    )


Json = Annotated[bool, option("--json", make="json", help="Print JSON on stdout.")]
Agent = Annotated[str, option("--agent", make="agent", help="Whose memory answers.")]
Wait = Annotated[bool, option("--wait", make="wait", help="Wait for the learning task.")]
Question = Annotated[str, argument("q", "What to ask.")]
Card = Annotated[
    str,
    typer.Argument(
        help="NAME, NAME@ALIAS, NAME@DIGEST, or a digest or its beginning.",
        autocompletion=completing.cards,
    ),
]
CardName = Annotated[str, typer.Argument(help="Name of a card.", autocompletion=completing.cards)]
Alias = Annotated[str, typer.Option(help="That moves; nodes follow `latest`.")]
Task = Annotated[str, typer.Argument(help="Id of a task.", autocompletion=completing.tasks)]
