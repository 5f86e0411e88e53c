"""Pages of the catalogue: filters, full text, and tokens that stay good while cards are added.

A token is the sort key of the last card of a page (keyset paging), so that no page is skipped or
repeated whatever happens between. Full text is SQLite's FTS5, kept by the same transaction as the
card; other databases look through the cards' texts.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Annotated

import pydantic
import sqlalchemy as sa

from services.card_store import records
from services.card_store.catalogue import rows, schema
from shared import errors
from shared.cards import manifest as manifests

_CARDS, _ALIASES, _WORDS = rows.CARDS, rows.ALIASES, schema.WORDS
_MOST_ON_A_PAGE = 1000
_MOST_WORDS = 16
_MOST_TEXT = 20_000
"""Characters of one card that are searched."""
_KEY = pydantic.TypeAdapter(
    tuple[manifests.Name, Annotated[int, pydantic.Field(ge=0, lt=2**63)], manifests.Sha256],
    config=pydantic.ConfigDict(strict=True),
)
"""What a page token holds: name, time of commit and digest of a card."""
_LONGEST_TOKEN = 400


def page(connection: sa.Connection, query: records.Query) -> records.Listing:
    """The active cards that a query asks for.

    Raises:
        errors.InvalidInputError: the page token is not one of this store.
    """
    wanted = sa.select(_CARDS).where(_CARDS.c.state == records.CardState.ACTIVE.value)
    if not query.all_versions:
        # Not a join, from which SQLite would begin and then sort everything.
        is_latest = sa.exists().where(
            _ALIASES.c.digest == _CARDS.c.digest, _ALIASES.c.alias == records.LATEST
        )
        wanted = wanted.where(is_latest)
    for column in ("name", "domain", "base_fingerprint"):
        if value := getattr(query, column):
            wanted = wanted.where(_CARDS.c[column] == value)
    if query.tenants is not None:
        wanted = wanted.where(_visible_to(query.tenants))
    if query.text.strip():
        wanted = wanted.where(_has_words(connection, query.text))
    if query.page_token:
        wanted = wanted.where(_after(query.page_token))
    wanted = wanted.order_by(_CARDS.c.name, _CARDS.c.created_at_ms.desc(), _CARDS.c.digest)
    size = min(query.page_size, _MOST_ON_A_PAGE) if query.page_size > 0 else 0
    found = list(connection.execute(wanted.limit(size + 1) if size else wanted))
    shown = found[:size] if size else found
    digests = {row.digest for row in shown} if size else None
    pointing = rows.aliases_by_digest(connection, digests)
    return records.Listing(
        tuple(rows.to_record(row, pointing.get(row.digest, ())) for row in shown),
        rows.head(connection),
        _token(shown[-1]) if size and len(found) > size else "",
    )


def remember_words(connection: sa.Connection, card: records.CardRecord) -> None:
    """Makes a new card findable by its words."""
    if connection.dialect.name == "sqlite":
        values = {"digest": card.digest, "words": _text(card)}
        connection.execute(sa.insert(_WORDS).values(values))


def _text(card: records.CardRecord) -> str:
    examples: list[str] = []
    try:
        profile = json.loads(card.manifest_json).get("routing") or {}
        examples = [str(example) for example in profile.get("examples", ())]
    except (ValueError, AttributeError):
        pass  # Its other texts still find it.
    return " ".join([card.name, card.domain, card.description, *examples])[:_MOST_TEXT]


def _has_words(connection: sa.Connection, text: str) -> sa.ColumnElement[bool]:
    words = re.findall(r"\w+", text.lower())[:_MOST_WORDS]
    if not words:
        return sa.false()
    if connection.dialect.name == "sqlite":
        # Quoted, since FTS5 has a language of its own; the last word may be half typed.
        match = " ".join(f'"{word}"' for word in words) + "*"
        found = sa.select(_WORDS.c.digest).where(sa.literal_column("card_words").op("MATCH")(match))
        return _CARDS.c.digest.in_(found)
    texts = (_CARDS.c.name, _CARDS.c.domain, _CARDS.c.description, _CARDS.c.manifest_json)
    return sa.and_(
        *(sa.or_(*(column.icontains(word, autoescape=True) for column in texts)) for word in words)
    )


def _visible_to(tenants: frozenset[str]) -> sa.ColumnElement[bool]:
    theirs = (_CARDS.c.tenants.contains(f"|{tenant}|", autoescape=True) for tenant in tenants)
    return sa.or_(_CARDS.c.tenants == "", *theirs)


def _token(row: sa.Row[tuple[object, ...]]) -> str:
    key = [row.name, row.created_at_ms, row.digest]
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _after(token: str) -> sa.ColumnElement[bool]:
    try:
        if len(token) > _LONGEST_TOKEN:
            raise ValueError("too long")
        name, created_at_ms, digest = _KEY.validate_json(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise errors.InvalidInputError(
            f"page_token {token[:40]!r} is not one that this store gave; begin without one"
        ) from error
    older = sa.or_(
        _CARDS.c.created_at_ms < created_at_ms,
        sa.and_(_CARDS.c.created_at_ms == created_at_ms, _CARDS.c.digest > digest),
    )
    # The first condition alone lets the index skip to the place.
    return sa.and_(_CARDS.c.name >= name, sa.or_(_CARDS.c.name > name, older))
