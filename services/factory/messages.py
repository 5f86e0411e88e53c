"""Translates values that several clients of the factory send or get to and from protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from services.factory import feedback, partners
from shared.pb import distiller_pb2, trainer_pb2, types_pb2


def ticket(ticket: Any) -> partners.Ticket:
    """A ticket from its message."""
    return partners.Ticket(ticket.kind, ticket.digest, ticket.size_bytes, ticket.name)


def to_ticket(ticket: partners.Ticket) -> types_pb2.Ticket:
    """The message of a ticket."""
    return types_pb2.Ticket(
        kind=ticket.kind, digest=ticket.digest, size_bytes=ticket.size_bytes, name=ticket.name
    )


def rows(rows: Iterable[Any]) -> tuple[partners.GateRow, ...]:
    """The gate's table from its messages."""
    return tuple(
        partners.GateRow(row.name, row.right, row.asked, row.required, row.passed) for row in rows
    )


def to_triggers(triggers: Iterable[partners.Trigger]) -> list[types_pb2.Trigger]:
    """The messages of triggers."""
    return [
        types_pb2.Trigger(query=one.query, expected_answer=one.expected_answer) for one in triggers
    ]


def to_corrections(
    corrections: Iterable[feedback.Correction],
) -> list[distiller_pb2.Correction]:
    """The messages of corrections."""
    return [
        distiller_pb2.Correction(
            query=one.question, expected_answer=one.answer, wrong_answer=one.wrong
        )
        for one in corrections
    ]


def to_followed(card: partners.Followed) -> distiller_pb2.Followed:
    """The message of the card whose next version learns corrections."""
    return distiller_pb2.Followed(
        skill_name=card.skill_name, domain=card.domain, dataset_digest=card.dataset_digest
    )


def code_base(result: Any) -> partners.CodeBase | None:
    """What samples were made from, where a repository was read."""
    if not result.HasField("code_base"):
        return None
    found = result.code_base
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.samples.items()))
    told = f"{kinds}, from {found.files} files at commit {found.commit_id[:12]}"
    return partners.CodeBase(found.commit_id, found.probe, told)


def to_published(card: partners.Published) -> trainer_pb2.PublishedCard:
    """The message of a published card."""
    digest = card.card.partition("@")[2]
    return trainer_pb2.PublishedCard(card_digest=digest, dataset_digest=card.dataset_digest)
