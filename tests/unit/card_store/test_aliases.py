from __future__ import annotations

import tempfile

import hypothesis
import pytest
from hypothesis import strategies as st

from services.card_store import records
from services.card_store.catalogue import catalogue, schema
from shared import errors
from tests.unit.card_store.catalogue_cards import card, digest_of


def test_rollback_goes_where_the_alias_was_when_a_rollback_came_before(
    cards: catalogue.Catalogue,
) -> None:
    for number in range(1, 5):
        cards.add_card(card(number))
    for number in (1, 2, 3):
        cards.aliases.set("sql", "production", digest_of(number))
    assert cards.aliases.roll_back("sql", "production").record.digest == digest_of(2)
    cards.aliases.set("sql", "production", digest_of(4))
    # Not to 3, which was gone back from.
    assert cards.aliases.roll_back("sql", "production").record.digest == digest_of(2)
    assert cards.aliases.roll_back("sql", "production").record.digest == digest_of(1)
    with pytest.raises(errors.PreconditionError, match="nothing to go back to"):
        cards.aliases.roll_back("sql", "production")
    told = [move.digest for move in cards.aliases.history("sql", "production")]
    assert told == [digest_of(n) for n in (1, 2, 4, 2, 3, 2, 1)]


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(st.lists(st.one_of(st.just("back"), st.integers(1, 4)), max_size=14))
def test_alias_goes_up_and_down_like_a_stack_whatever_is_done(steps: list[object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cards = catalogue.Catalogue(schema.open_database(f"sqlite:///{folder}/c.db"))
        cards.migrate()
        for number in range(1, 5):
            cards.add_card(card(number))
        stack: list[str] = []
        for step in steps:
            if isinstance(step, int):
                cards.aliases.set("sql", "production", digest_of(step))
                if not stack or stack[-1] != digest_of(step):
                    stack.append(digest_of(step))
            elif len(stack) > 1:
                stack.pop()
                # A move to the card that is there already is no move.
                assert cards.aliases.roll_back("sql", "production").record.digest == stack[-1]
            else:
                with pytest.raises(errors.PreconditionError if stack else errors.NotFoundError):
                    cards.aliases.roll_back("sql", "production")
            if stack:
                assert cards.get("sql@production").digest == stack[-1]
        cards.close()


def test_rollback_passes_over_cards_when_they_were_retired(cards: catalogue.Catalogue) -> None:
    for number in range(1, 4):
        cards.add_card(card(number))
    cards.retirement.delete(digest_of(2))
    assert cards.aliases.roll_back("sql", "latest").record.digest == digest_of(1)


def test_rollback_moves_once_when_its_request_comes_again(cards: catalogue.Catalogue) -> None:
    for number in range(1, 4):
        cards.add_card(card(number))
    first = cards.aliases.roll_back("sql", "latest", "key")
    again = cards.aliases.roll_back("sql", "latest", "key")
    assert (again.moved, again.revision) == (False, first.revision)
    assert cards.get("sql").digest == digest_of(2)
    with pytest.raises(errors.AlreadyExistsError):
        cards.aliases.set("sql", "production", digest_of(1), "key")


def test_rollback_is_refused_when_there_is_no_such_alias(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    with pytest.raises(errors.NotFoundError, match="staging"):
        cards.aliases.roll_back("sql", "staging")


def test_alias_is_refused_when_its_card_was_retired(cards: catalogue.Catalogue) -> None:
    cards.add_card(card(1))
    cards.add_card(card(2))
    cards.retirement.delete(digest_of(1))
    with pytest.raises(errors.PreconditionError, match=records.CardState.DELETED.value):
        cards.aliases.set("sql", "production", digest_of(1))
