"""`promote`, `rollback`, `revoke`: which version of a card serves, and which never again."""

from __future__ import annotations

import sys
import uuid

import typer

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import card_page, reaching
from shared import errors, terminal


async def promote(name: str, digest: str, alias: str, as_json: bool) -> None:
    """Points an alias to a version.

    Args:
        name: of the card.
        digest: of the version, or its beginning.
        alias: such as `latest`, which the nodes follow.
        as_json: print the version that it points to now.
    """
    key = uuid.uuid4().hex

    async def move(services: peers.Peers) -> domain.Card:
        card = (await card_page.found(services, f"{name}@{digest}")).card
        return await services.store.promote(card.name, alias, card.digest, key)

    _tell(await reaching.asked(move), alias, as_json)


async def roll_back(name: str, alias: str, as_json: bool) -> None:
    """Moves an alias to where it pointed before its latest move."""
    key = uuid.uuid4().hex
    card = await reaching.asked(lambda services: services.store.roll_back(name, alias, key))
    _tell(card, alias, as_json)


async def revoke(reference: str, reason: str, is_sure: bool, as_json: bool) -> None:
    """Declares a card not to be trusted any more, which can't be taken back.

    Raises:
        terminal.UsageError: nobody said that they are sure, and nobody can be asked.
    """
    card = (await reaching.asked(lambda services: card_page.found(services, reference))).card
    if not is_sure:
        _make_sure(card)
    digests = await reaching.asked(lambda services: _revoked(services, card, reason))
    if as_json:
        terminal.print_json({"name": card.name, "digest": card.digest, "revoked": digests})
        return
    for digest in digests:
        terminal.RESULT.print(f"revoked {digest}: nodes unload it, and it can't come back")


async def _revoked(services: peers.Peers, card: domain.Card, reason: str) -> list[str]:
    try:
        return await services.store.revoke(card.digest, reason)
    except errors.AlreadyExistsError:
        return [card.digest]  # An attempt before got through.


def _make_sure(card: domain.Card) -> None:
    what = f"revoke {card.name} {card.version} ({card.digest[:12]})"
    if not sys.stdin.isatty():
        raise terminal.UsageError(f"{what}: that can't be taken back; say --yes where it is meant")
    if not typer.confirm(f"{what}? It can't be taken back", err=True):
        raise terminal.FailedError("nothing was revoked")


def _tell(card: domain.Card, alias: str, as_json: bool) -> None:
    if as_json:
        terminal.print_json(card)
        return
    now = f"{card.name}@{alias} is {card.version}, {card.digest}"
    terminal.RESULT.print(terminal.escape(now), soft_wrap=True)
