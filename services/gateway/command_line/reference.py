"""`python -m services.gateway.command_line.reference`: writes docs/command-line.md.

Made of the commands' own help, so that it can't tell anything else; a test compares both.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import typer.main

from services.gateway import __main__ as command_line
from services.gateway.cluster import cluster

PATH = cluster.ROOT / "docs" / "command-line.md"
_WIDTH = 100
_HEAD = """\
# The command line

Written by `python -m services.gateway.command_line.reference`; change the commands' help instead.

`make setup` puts the command into `.venv/bin/skillmesh`; `export PATH="$PWD/.venv/bin:$PATH"` lets
you call it by its name. `pip install .` puts it into any other environment, together with the
packages `shared` and `services` that it runs. It reads `config.yaml` of the folder that it is
called in, or what `--config` or `SKILLMESH_CONFIG` names, and paths in there, the state folder's
too, count from where it is called.

Results go to stdout; progress and errors go to stderr, progress as bars on a terminal and as lines
in a pipe. With `--json`, stdout holds one JSON value, whose keys stay. An error is one line:
`error: …`.

| exit code | means |
| --- | --- |
| 0 | it worked |
| 1 | it failed, and the message says why |
| 2 | wrong usage |
| 3 | a service can't be reached or is busy: the same may work later |
| 130 | interrupted |

`skillmesh --install-completion` lets your shell complete commands, options, the names of cards and
the ids of tasks; `--show-completion` prints what it would install. A cluster that does not answer
within a second completes nothing.

Arguments that `make` hands over, as in `make ask q="…"`, come as `SKILLMESH_ARG_NAME` in the
environment.
"""


def markdown() -> str:
    """The whole reference."""
    root: Any = typer.main.get_command(command_line.app)
    context = _context(root, command_line.NAME)
    parts = [_HEAD, _block(root, context)]
    for name, command, own in _commands(root, context):
        parts += [f"## {name}\n", _block(command, own)]
    return "\n".join(parts)


def _commands(group: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each command by its whole name, with those that it has."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        own = _context(command, name, context)
        yield own.command_path.removeprefix(f"{command_line.NAME} "), command, own
        if hasattr(command, "list_commands"):
            yield from _commands(command, own)


def _context(command: Any, name: str, parent: Any = None) -> Any:
    return typer.Context(
        command, info_name=name, parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
    )


def _block(command: Any, context: Any) -> str:
    # Trailing blanks are where a column is empty.
    text = re.sub(r" +$", "", command.get_help(context), flags=re.MULTILINE)
    return f"```text\n{text.strip()}\n```\n"


def main(path: pathlib.Path = PATH) -> None:
    """Writes the file."""
    path.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
