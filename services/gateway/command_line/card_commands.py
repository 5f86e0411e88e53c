"""Commands about cards, as `__main__` adds them."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

from services.gateway.command_line import card_page, exchange, listing, options, steering
from shared import terminal

_LATEST = "latest"
cards = options.group()


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.add_typer(cards, name="cards")
    for command in (promote, rollback, revoke, export):
        app.command()(command)
    app.command("import")(import_card)


@cards.callback(invoke_without_command=True)
def list_cards(context: typer.Context, as_json: options.Json = False) -> None:
    """List the skill cards, or show one.

    JSON: a list of objects with name, digest, version, domain, description, size_bytes,
    created_at_ms, aliases, state, base_fingerprint, origin, is_remote.
    """
    if context.invoked_subcommand is None:
        terminal.run(lambda: listing.cards(as_json))


@cards.command()
def show(card: options.Card, as_json: options.Json = False) -> None:
    """Show a card: its versions and aliases, the gate's table, where it comes from, who holds it.

    JSON: the object of the list, and base_model, gate, lineage, licence, route, examples, signers,
    versions, moves, nodes.
    """
    terminal.run(lambda: card_page.show(card, as_json))


def promote(
    name: options.CardName,
    digest: Annotated[str, typer.Argument(help="Of the version, or its beginning.")],
    alias: options.Alias = _LATEST,
    as_json: options.Json = False,
) -> None:
    """Let a version of a card serve.

    JSON: the object of `cards` for the version that the alias points to now.
    """
    terminal.run(lambda: steering.promote(name, digest, alias, as_json))


def rollback(
    name: options.CardName, alias: options.Alias = _LATEST, as_json: options.Json = False
) -> None:
    """Let the version serve that did before; again: one step further.

    JSON: the object of `cards` for the version that the alias points to now.
    """
    terminal.run(lambda: steering.roll_back(name, alias, as_json))


def revoke(
    card: options.Card,
    reason: Annotated[str, typer.Option(help="For the records.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")] = False,
    as_json: options.Json = False,
) -> None:
    """Declare a version of a card not to be trusted any more; it can't be taken back.

    JSON: an object with name, digest, revoked.
    """
    terminal.run(lambda: steering.revoke(card, reason, yes, as_json))


def export(
    card: options.Card,
    folder: Annotated[pathlib.Path, typer.Argument(help="Made if it is not there.")],
    what: Annotated[
        exchange.What, typer.Option("--as", help="A PEFT directory, the card's file, or both.")
    ] = exchange.What.BOTH,
    as_json: options.Json = False,
) -> None:
    """Write a card into a folder: as a PEFT directory, as its own file with its signature, or both.

    JSON: an object with name, version, digest, folder, files, signers.
    """
    terminal.run(lambda: exchange.export(card, folder, what, as_json))


def import_card(
    path: Annotated[
        pathlib.Path,
        typer.Argument(help="A card's file, a folder with one, or a PEFT directory."),
    ],
    name: Annotated[str, typer.Option(help="Of a PEFT directory's card; by default its own.")] = "",
    version: Annotated[str, typer.Option(help="Of a PEFT directory's card; default 0.1.0.")] = "",
    sign: Annotated[
        bool, typer.Option("--sign", help="Vouch for it with the trainer's key of this machine.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Publish a card's file, or a PEFT directory made for the base model that the cluster runs.

    A signature that lies beside the file, as an export writes it, goes with it; its signer must be
    in the keyring. Without one, a cluster with security.require_signatures takes the card only with
    --sign: every node will then trust it as if it had passed the gate here, which it has not.

    JSON: the object of `cards`, and source, signer.
    """
    terminal.run(lambda: exchange.import_card(path, name, version, sign, as_json))
