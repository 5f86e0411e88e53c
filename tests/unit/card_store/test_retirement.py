from __future__ import annotations

import pytest

from services.card_store import records
from services.card_store.catalogue import catalogue
from shared import errors
from tests.unit.card_store.catalogue_cards import card, digest_of

ACTIVE, DELETED, REVOKED = records.CardState


def told(changes: tuple[records.Change, ...]) -> list[tuple[str, str, str]]:
    return [
        (change.kind.name, change.card.version if change.card else "", change.alias)
        for change in changes
    ]


def test_aliases_go_to_the_version_before_when_a_card_is_deleted(
    cards: catalogue.Catalogue,
) -> None:
    cards.add_card(card(1))
    cards.add_card(card(2))
    cards.aliases.set("sql", "staging", digest_of(2))
    gone = cards.retirement.delete(digest_of(2))
    # An alias that never pointed elsewhere goes with its card.
    assert told(gone.changes) == [("CARD_DELETED", "2.0.0", ""), ("ALIAS_MOVED", "1.0.0", "latest")]
    assert cards.get("sql").digest == digest_of(1)
    with pytest.raises(errors.NotFoundError):
        cards.get("sql@staging")
    tombstone = cards.get(digest_of(2))
    assert (tombstone.state, tombstone.aliases) == (DELETED, ())
    assert not cards.holds(digest_of(2))
    assert [c.digest for c in cards.list_cards(records.Query(all_versions=True)).cards] == [
        digest_of(1)
    ]


def test_digest_and_version_stay_taken_when_a_card_was_deleted(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    cards.retirement.delete(digest_of(1))
    for attempt in (
        lambda: cards.add_card(card(1)),
        lambda: cards.find_card_commit(digest_of(1)),
        lambda: cards.check_acceptable(card(1)),
    ):
        with pytest.raises(errors.PreconditionError, match="deleted"):
            attempt()
    with pytest.raises(errors.AlreadyExistsError):
        cards.add_card(card(9, version="1.0.0"))


def test_log_stays_when_a_card_is_retired_again(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    assert cards.retirement.delete(digest_of(1)).revision == 2
    assert cards.retirement.delete(digest_of(1)).changes == ()
    # Deleted is not yet mistrusted; mistrusted is for good.
    assert told(cards.retirement.revoke_card(digest_of(1)).changes) == [
        ("CARD_REVOKED", "1.0.0", "")
    ]
    assert cards.retirement.revoke_card(digest_of(1)).changes == ()
    assert cards.retirement.delete(digest_of(1)).changes == ()
    assert cards.get(digest_of(1)).state is REVOKED


def test_all_cards_of_a_key_go_when_it_is_revoked(cards: catalogue.Catalogue) -> None:
    for number, signer in ((1, "good"), (2, "bad"), (3, "bad")):
        cards.add_card(card(number, signer=signer))
    gone = cards.retirement.revoke_key("bad", "stolen")
    assert gone.digests == (digest_of(2), digest_of(3))
    assert gone.changes[0].kind is records.ChangeKind.KEY_REVOKED
    assert gone.changes[0].key_id == "bad"
    assert cards.get("sql").digest == digest_of(1)
    assert cards.retirement.revoked_keys() == {"bad": "stolen"}
    assert cards.retirement.revoke_key("bad", "again").changes == ()
    with pytest.raises(errors.UntrustedError, match="bad"):
        cards.add_card(card(4, signer="bad"))
    with pytest.raises(errors.InvalidInputError):
        cards.retirement.revoke_key("", "nothing")


def test_error_names_the_digest_when_there_is_no_such_card(cards: catalogue.Catalogue) -> None:
    for attempt in (cards.retirement.delete, cards.retirement.revoke_card):
        with pytest.raises(errors.NotFoundError, match=digest_of(7)):
            attempt(digest_of(7))


def test_watch_is_told_to_list_again_when_the_log_was_compacted(
    cards: catalogue.Catalogue,
) -> None:
    first = cards.add_card(card(1))
    for number in range(2, 7):
        cards.add_card(card(number))
    assert cards.compact(2) == 4
    with pytest.raises(errors.RevisionTooOldError, match="list the cards"):
        cards.changes_after(3, 10)
    assert [change.revision for change in cards.changes_after(4, 10)] == [5, 6]
    assert cards.totals().oldest_revision == 4
    # Whoever commits again is told a revision that can still be waited for.
    again = cards.add_card(card(1))
    assert (again.created, again.revision) == (False, 4) and first.revision == 1
    # All of it may go: the next line still has the next number.
    assert cards.compact(0) == 6
    assert cards.add_card(card(7)).revision == 7
    assert cards.compact(100) == 6
