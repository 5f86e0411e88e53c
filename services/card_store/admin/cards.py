"""`python -m services.card_store.admin`: what an operator does with a card store.

Speaks to the running store over gRPC, with the token and certificates of `config.yaml`; `backup`
and `restore` work on the files of this machine. Results go to stdout, as JSON with `--json`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

import google.protobuf.json_format
import rich.table
import typer

from services.card_store.admin import connection, upkeep
from shared import terminal
from shared.pb import cards_pb2

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Look after a card store: cards, aliases, trust, nodes, files.",
)
_DIGEST_SHOWN = 12

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Reference = Annotated[str, typer.Argument(help="name, name@alias, or a digest's beginning.")]
Name = Annotated[str, typer.Argument(help="Of a card.")]
Alias = Annotated[str, typer.Argument(help="Such as production.")]
Reason = Annotated[str, typer.Option(help="For the records.")]
Store = connection.Address


@app.command("list")
def list_cards(
    all_versions: Annotated[bool, typer.Option("--all", help="Not only the latest.")] = False,
    name: Annotated[str, typer.Option(help="Of the card.")] = "",
    domain: Annotated[str, typer.Option(help="Of the card.")] = "",
    base: Annotated[str, typer.Option(help="Fingerprint of the base model.")] = "",
    store: Store = "",
    as_json: Json = False,
) -> None:
    """List the cards."""
    request = cards_pb2.ListCardsRequest(
        all_versions=all_versions, name=name, domain=domain, base_fingerprint=base
    )
    _print_cards(request, store, as_json)


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Words of name, domain, description, examples.")],
    store: Store = "",
    as_json: Json = False,
) -> None:
    """List the cards that have some words."""
    _print_cards(cards_pb2.ListCardsRequest(text=text), store, as_json)


@app.command()
def show(reference: Reference, store: Store = "", as_json: Json = False) -> None:
    """Show a card: state, signer's envelope, lineage, gate results."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            card = await calls.card(reference)
        told = _told(card)
        told["manifest"] = json.loads(told.pop("manifest_json", "{}") or "{}")
        told["signature"] = json.loads(told.pop("signature_json", "null") or "null")
        # Vectors say nothing to people.
        (told["manifest"].get("routing") or {}).pop("centroid", None)
        if as_json:
            terminal.print_json(told)
        else:
            terminal.RESULT.print_json(data=told)

    terminal.run(command)


@app.command()
def promote(reference: Reference, alias: Alias, store: Store = "") -> None:
    """Point an alias to a card."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            card = await calls.card(reference)
            request = cards_pb2.SetAliasRequest(
                idempotency_key=uuid.uuid4().hex, name=card.name, alias=alias, digest=card.digest
            )
            _print_pointing(await calls.store("SetAlias", request), alias)

    terminal.run(command)


@app.command()
def rollback(name: Name, alias: Alias, store: Store = "") -> None:
    """Move an alias to where it pointed before; again: one step further."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            request = cards_pb2.RollBackAliasRequest(
                idempotency_key=uuid.uuid4().hex, name=name, alias=alias
            )
            _print_pointing(await calls.store("RollBackAlias", request), alias)

    terminal.run(command)


@app.command()
def history(name: Name, alias: Alias, store: Store = "", as_json: Json = False) -> None:
    """List where an alias pointed, newest first."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            request = cards_pb2.ListAliasMovesRequest(name=name, alias=alias)
            moves = (await calls.store("ListAliasMoves", request)).moves
        rows = [
            (str(move.revision), terminal.moment(move.moved_at_ms), move.digest) for move in moves
        ]
        _print(("revision", "moved", "digest"), rows, list(map(_told, moves)), as_json)

    terminal.run(command)


@app.command()
def delete(reference: Reference, reason: Reason = "", store: Store = "") -> None:
    """Take a card out of service; its digest can't come back."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            card = await calls.card(reference)
            request = cards_pb2.DeleteCardRequest(digest=card.digest, reason=reason)
            await calls.store("DeleteCard", request)
        terminal.RESULT.print(f"deleted {card.name}@{card.digest}")

    terminal.run(command)


@app.command()
def revoke(
    reference: Annotated[str, typer.Argument(help="A card; or give --key.")] = "",
    key: Annotated[str, typer.Option(help="Id of a signer's key, with all its cards.")] = "",
    reason: Reason = "",
    store: Store = "",
) -> None:
    """Declare a card, or all cards of a key, not to be trusted any more; can't be taken back."""

    async def command() -> None:
        if bool(reference) == bool(key):
            raise terminal.UsageError("give a card or --key, one of them")
        async with connection.opened(store) as calls:
            request = cards_pb2.RevokeRequest(key_id=key, reason=reason)
            if reference:
                digest = (await calls.card(reference)).digest
                request = cards_pb2.RevokeRequest(digest=digest, reason=reason)
            gone = await calls.store("Revoke", request)
        for digest in gone.digests:
            terminal.RESULT.print(f"revoked {digest}")
        if not gone.digests:
            terminal.RESULT.print("revoked; no card here was signed by it")

    terminal.run(command)


@app.command()
def residency(
    reference: Annotated[str, typer.Argument(help="A card; by default all.")] = "",
    store: Store = "",
    as_json: Json = False,
) -> None:
    """List which node holds what."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            digest = (await calls.card(reference)).digest if reference else ""
            request = cards_pb2.ListResidencyRequest(digest=digest)
            nodes = (await calls.store("ListResidency", request)).nodes
        rows = [
            (
                node.node_id,
                node.address,
                str(node.revision),
                str(len(node.digests)),
                node.base_fingerprint[:12],
            )
            for node in nodes
        ]
        _print(
            ("node", "address", "revision", "cards", "base"), rows, list(map(_told, nodes)), as_json
        )

    terminal.run(command)


@app.command()
def peers(store: Store = "", as_json: Json = False) -> None:
    """List the stores that this one follows."""

    async def command() -> None:
        async with connection.opened(store) as calls:
            found = (await calls.store("ListPeers", cards_pb2.ListPeersRequest())).peers
        rows = [
            (peer.store_id, peer.control, str(peer.revision), str(peer.connected), str(peer.cards))
            for peer in found
        ]
        header = ("store", "address", "revision", "connected", "cards")
        _print(header, rows, list(map(_told, found)), as_json)

    terminal.run(command)


def _print_cards(request: cards_pb2.ListCardsRequest, store: str, as_json: bool) -> None:
    async def command() -> None:
        async with connection.opened(store) as calls:
            found = await calls.cards(request)
        rows = [
            (
                card.name,
                card.version,
                card.digest[:_DIGEST_SHOWN],
                terminal.size(card.size_bytes),
                card.domain,
                terminal.moment(card.created_at_ms),
                ", ".join(card.aliases),
            )
            for card in found
        ]
        header = ("name", "version", "digest", "size", "domain", "created", "aliases")
        _print(header, rows, [_told(card, brief=True) for card in found], as_json)

    terminal.run(command)


def _print_pointing(card: cards_pb2.CardRecord, alias: str) -> None:
    terminal.RESULT.print(f"{card.name}@{alias} is {card.version}, {card.digest}")


def _print(
    header: Sequence[str],
    rows: Sequence[tuple[str, ...]],
    told: list[dict[str, Any]],
    as_json: bool,
) -> None:
    if as_json:
        terminal.print_json(told)
        return
    table = rich.table.Table()
    for column in header:
        table.add_column(column, no_wrap=column in ("name", "digest"))
    for row in rows:
        table.add_row(*map(terminal.escape, row))
    terminal.RESULT.print(table if rows else "nothing")


def _told(message: Any, brief: bool = False) -> dict[str, Any]:
    """A protobuf message as plain values, with the names of its fields."""
    told: dict[str, Any] = google.protobuf.json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    for field in message.DESCRIPTOR.fields:
        if field.cpp_type == field.CPPTYPE_INT64:  # Which JSON of protobuf makes texts of.
            told[field.name] = int(told[field.name])
        if brief and field.name.endswith("_json"):
            del told[field.name]
    return told


upkeep.register(app)
