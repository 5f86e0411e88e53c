from __future__ import annotations

import json

import pytest

from services.card_store import tickets
from shared import errors
from shared.flight import commands

DIGEST = "a" * 64
GOOD = {"kind": "card", "digest": DIGEST, "size_bytes": 10, "batches": 1}


def test_upload_is_accepted_when_it_is_well_formed() -> None:
    command = tickets.parse_put(json.dumps(GOOD).encode(), largest_upload_bytes=10)
    assert (command.kind, command.digest, command.size_bytes, command.batches) == (
        "card", DIGEST, 10, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "weights"}, "kind"),
        ({"digest": "../" * 21 + "x"}, "digest"),
        ({"digest": "A" * 64}, "digest"),
        ({"digest": DIGEST + "\n"}, "digest"),
        ({"size_bytes": -1}, "size_bytes"),
        ({"size_bytes": 0}, "size_bytes"),
        ({"size_bytes": "10"}, "size_bytes"),
        ({"size_bytes": True}, "size_bytes"),
        ({"size_bytes": 11}, "largest_upload_bytes"),
        ({"batches": 0}, "batches"),
        ({"batches": None}, "batches"),
        ({"path": "/etc"}, "path"),
    ],
)
def test_upload_is_refused_with_the_field_named_when_it_is_wrong(
    change: dict[str, object], named: str
) -> None:
    with pytest.raises(errors.InvalidInputError, match=named):
        tickets.parse_put(json.dumps(GOOD | change).encode(), largest_upload_bytes=10)


@pytest.mark.parametrize("text", [None, b"", b"\xff\xfe", b"[]", b"{", b"null", b" " * 5000])
def test_upload_is_refused_when_its_command_is_no_object(text: bytes | None) -> None:
    with pytest.raises(errors.InvalidInputError, match="command"):
        tickets.parse_put(text, largest_upload_bytes=10)


@pytest.mark.parametrize("text", [b"", b"{}", b'{"digest": 1}', b'{"digest": "x", "raw": true}'])
def test_ticket_is_refused_when_it_is_malformed(text: bytes) -> None:
    with pytest.raises(errors.InvalidInputError, match="ticket"):
        commands.parse_get(text)


def test_ticket_asks_for_a_table_when_it_does_not_say_raw() -> None:
    assert commands.parse_get(tickets.table_ticket(DIGEST)).raw is False


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        (None, [b"sql"], "sql"),
        (None, [b"sql@production"], "sql@production"),
        (json.dumps({"name": "sql", "digest": DIGEST}).encode(), None, DIGEST),
    ],
)
def test_descriptor_names_a_card_when_it_is_a_path_or_a_listed_command(
    command: bytes | None, path: list[bytes] | None, expected: str
) -> None:
    assert tickets.reference_of(command, path) == expected


@pytest.mark.parametrize(
    ("command", "path"),
    [(None, []), (None, [b"a", b"b"]), (None, [b"\xff"]), (b"[]", None), (b"{}", None), (b"", [])],
)
def test_descriptor_is_refused_when_it_is_neither(
    command: bytes | None, path: list[bytes] | None
) -> None:
    with pytest.raises(errors.InvalidInputError, match="descriptor"):
        tickets.reference_of(command, path)
