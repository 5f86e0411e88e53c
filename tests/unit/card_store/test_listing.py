from __future__ import annotations

import base64
import json

import pytest

from services.card_store import records
from services.card_store.catalogue import catalogue
from shared import errors
from tests.unit.card_store.catalogue_cards import card, digest_of


def digests(listing: records.Listing) -> list[str]:
    return [found.digest for found in listing.cards]


def pages(cards: catalogue.Catalogue, **query: object) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = cards.list_cards(records.Query(page_token=token, **query))  # type: ignore[arg-type]
        assert len(page.cards) <= 3
        found += digests(page)
        if not (token := page.next_page_token):
            return found


def test_pages_have_every_card_once_when_put_together(cards: catalogue.Catalogue) -> None:
    for number in range(1, 12):
        cards.add_card(card(number, f"name-{number % 4}", created_at_ms=number // 3))
    for all_versions in (True, False):
        whole = digests(cards.list_cards(records.Query(all_versions=all_versions)))
        assert pages(cards, all_versions=all_versions, page_size=3) == whole
        assert len(whole) == len(set(whole)) == (11 if all_versions else 4)


def test_page_neither_skips_nor_repeats_when_cards_come_and_go_between(
    cards: catalogue.Catalogue,
) -> None:
    for number in range(1, 7):
        cards.add_card(card(number, f"name-{number}"))
    first = cards.list_cards(records.Query(page_size=3))
    cards.add_card(card(8, "name-0"))
    cards.add_card(card(9, "name-45"))
    cards.retirement.delete(digest_of(3))
    rest = cards.list_cards(records.Query(page_size=9, page_token=first.next_page_token))
    assert digests(rest) == [digest_of(n) for n in (4, 9, 5, 6)]
    assert rest.next_page_token == ""


def token_of(key: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "nonsense",
        "é",
        *map(token_of, [None, [], ["a", 1], [None, 1, "b"], ["a", 2**63, "b"], ["a", "1", "b"]]),
    ],
)
def test_token_is_refused_when_this_store_did_not_give_it(
    cards: catalogue.Catalogue, token: str
) -> None:
    with pytest.raises(errors.InvalidInputError, match="page_token"):
        cards.list_cards(records.Query(page_size=3, page_token=token))


def test_cards_are_found_when_name_domain_and_base_model_are_asked(
    cards: catalogue.Catalogue,
) -> None:
    cards.add_card(card(1, "sql"))
    cards.add_card(card(2, "git", domain="tools"))
    cards.add_card(card(3, "vim", base_fingerprint="a" * 64))
    for query, expected in (
        (records.Query(name="git"), [2]),
        (records.Query(domain="databases"), [1, 3]),
        (records.Query(base_fingerprint="a" * 64), [3]),
        (records.Query(domain="databases", base_fingerprint="f" * 64), [1]),
        (records.Query(name="nothing"), []),
    ):
        assert sorted(digests(cards.list_cards(query))) == [digest_of(n) for n in expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("window", [2]),
        ("WINDOW functions", [2]),
        ("functions wind", [2]),
        ("pivot", [1]),
        ("databases", [1, 2]),
        ("git windows", []),
        ('" OR *', []),
        ("name:sql", []),
        ("Größe", [3]),
        ("größe", [3]),
        ("' ; DROP TABLE cards", []),
        ("   ", [1, 2, 3]),
        ("?!", []),
        ("word " * 500, []),
    ],
)
def test_words_find_cards_whatever_is_typed(
    cards: catalogue.Catalogue, text: str, expected: list[int]
) -> None:
    manifest = json.dumps({"routing": {"examples": ["How do I pivot a table?"]}})
    cards.add_card(card(1, "a", manifest_json=manifest))
    cards.add_card(card(2, "b", description="Window functions"))
    cards.add_card(card(3, "c", domain="tools", description="Die Größe von Tabellen"))
    found = cards.list_cards(records.Query(text=text))
    assert digests(found) == [digest_of(n) for n in expected]


def test_listing_has_a_tenants_cards_and_everybodys_when_it_asks(
    cards: catalogue.Catalogue,
) -> None:
    cards.add_card(card(1, "a"))
    cards.add_card(card(2, "b", tenants=("red",)))
    cards.add_card(card(3, "c", tenants=("blue", "red")))
    cards.add_card(card(4, "d", tenants=("reddish",)))
    for tenants, expected in (
        (None, [1, 2, 3, 4]),
        (frozenset[str](), [1]),
        (frozenset({"red"}), [1, 2, 3]),
        (frozenset({"blue", "x"}), [1, 3]),
        (frozenset({"%"}), [1]),
    ):
        found = cards.list_cards(records.Query(tenants=tenants))
        assert digests(found) == [digest_of(n) for n in expected]
        assert found.cards[0].tenants == ()
