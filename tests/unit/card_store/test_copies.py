from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import pytest

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from tests.unit.card_store.test_catalogue import card, digest_of

ONE, TWO, THREE = digest_of(1), digest_of(2), digest_of(3)


@pytest.fixture
def cards(tmp_path: pathlib.Path) -> Iterator[catalogue.Catalogue]:
    opened = catalogue.Catalogue(schema.open_database(f"sqlite:///{tmp_path / 'c.db'}"))
    opened.migrate()
    yield opened
    opened.close()


def cursor(revision: int = 1, flight: str = "f:1") -> records.PeerCursor:
    return records.PeerCursor("c:1", revision, flight)


def test_replicas_are_those_that_hold_and_are_reached_when_asked(
    cards: catalogue.Catalogue,
) -> None:
    for number in (1, 2):
        cards.add_card(card(number))
    cards.copies.remember("b", cursor(flight="f:2"), {ONE: True, TWO: False, THREE: True})
    cards.copies.remember("a", cursor(flight="f:1"), {ONE: True, TWO: True})
    asked = (ONE, TWO, THREE)
    assert cards.copies.replicas(asked) == {ONE: ["f:1", "f:2"], TWO: ["f:1"]}
    cards.copies.remember("a", cursor(flight=""), {})
    assert cards.copies.replicas(asked) == {ONE: ["f:2"]}
    cards.copies.remember("a", cursor(flight="f:9"), {ONE: False})
    assert cards.copies.replicas(asked) == {ONE: ["f:2"], TWO: ["f:9"]}
    cards.copies.forget_held("b")
    assert cards.copies.replicas(asked) == {TWO: ["f:9"]}


def test_giver_stays_when_what_it_holds_changes(cards: catalogue.Catalogue) -> None:
    cards.add_mirrored(dataclasses.replace(card(1), origin="o", remote=True), "giver")
    assert cards.copies.gave("giver", ONE) and not cards.copies.gave("o", ONE)
    assert cards.copies.replicas([ONE]) == {}
    for held in (True, False):
        cards.copies.remember("giver", cursor(), {ONE: held})
        assert cards.copies.gave("giver", ONE)
        assert cards.copies.replicas([ONE]) == ({ONE: ["f:1"]} if held else {})
    cards.copies.remember("o", cursor(), {ONE: True})
    assert not cards.copies.gave("o", ONE)


def test_cursor_is_the_last_one_when_it_was_written_again(cards: catalogue.Catalogue) -> None:
    many = {digest_of(number): True for number in range(2000)}
    cards.copies.remember("a", cursor(1), many)
    cards.copies.remember("a", cursor(2, ""), {})
    assert cards.copies.peers() == {"a": cursor(2, "")}
