"""Commands about the processes of a cluster, as `__main__` adds them."""

from __future__ import annotations

from typing import Annotated

import typer

from services.gateway.command_line import node_page, operating, options, showing
from services.gateway.command_line.doctor import doctor as doctors
from shared import terminal


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    for command in (up, console, down, status, nodes, logs, doctor):
        app.command()(command)


def up(as_json: options.Json = False) -> None:
    """Start the local cluster and wait until every service answers.

    JSON: an object with started, state_dir, knowledge_dir, addresses.
    """
    with terminal.exit_codes():
        operating.up(as_json)


def console(as_json: options.Json = False) -> None:
    """Open the pages of the cluster in a browser; start it where it does not run.

    JSON: an object with url; no browser is opened.
    """
    with terminal.exit_codes():
        showing.console(as_json)


def down(as_json: options.Json = False) -> None:
    """Stop the local cluster; what it learned stays.

    JSON: an object with stopped.
    """
    with terminal.exit_codes():
        operating.down(as_json)


def status(as_json: options.Json = False) -> None:
    """Show processes, health, cards, teachers and revision.

    JSON: an object with running, cluster, processes; of a running one also revision, cards,
    card_bytes, store_id, flight_address, node, teachers, hierarchy, null where nobody answers.
    """
    with terminal.exit_codes():
        operating.status(as_json)


def nodes(as_json: options.Json = False) -> None:
    """List the inference nodes: load, cards in memory, how far they follow the store, swaps.

    JSON: a list of objects with node_id, address, answers, behind, reported_at_ms, base_model,
    base_fingerprint, served, resident, pinned, held_bytes, revision, store_connected, swaps,
    running, most_rows, waiting, queue, max_new_tokens, context_tokens, fetches_cards; null where
    a node does not answer.
    """
    terminal.run(lambda: node_page.nodes(as_json))


def logs(
    service: Annotated[str, options.option(make="service", help="Of one; by default all.")] = "",
    lines: Annotated[int, typer.Option(min=1, help="Of each.")] = 40,
    as_json: options.Json = False,
) -> None:
    """Show the end of the logs.

    JSON: a list of objects with service, path, lines.
    """
    with terminal.exit_codes():
        operating.logs(service, lines, as_json)


def doctor(as_json: options.Json = False) -> None:
    """Tell what is wrong with this installation and its cluster, and how to mend it.

    Looks at Python and its packages, config.yaml, models, ports, the state folder, the clock,
    networks, certificates, tokens, keys and services, for a few seconds at most. Exit code 1 where
    something does not work.

    JSON: an object with errors, warnings, findings; each finding with about, level (ok, warning or
    error), text, remedy.
    """
    with terminal.exit_codes():
        doctors.run(as_json)
