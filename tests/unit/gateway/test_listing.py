"""Tables and bars on a narrow terminal: what people need next is there whole."""

from __future__ import annotations

import io
import re

import pytest
import rich.console

from services.gateway import domain
from services.gateway.command_line import following, listing
from tests import fake_holdings

NARROW = 80
LONG = "reading-the-instruments-of-quillhaven"
MISSING = "waiting for card_store, card_store_data, router, distiller, trainer, inference"


@pytest.fixture
def screen() -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), width=NARROW, force_terminal=True)


def printed(screen: rich.console.Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.file.getvalue())


def test_ids_of_tasks_can_be_copied_when_the_terminal_is_narrow(
    screen: rich.console.Console,
) -> None:
    task = domain.Task(
        id="edbe0ca3c13940bd",
        trigger_query="How deep is the well behind the observatory of Quillhaven?",
        other_queries=(),
        domain="quillhaven",
        priority=3,
        status="DISTILLING",
        card=f"{LONG}@{'a' * 64}",
        error="",
        progress=0.5,
        detail="",
        stage_times=(),
        created_at_ms=fake_holdings.NOW_MS,
        updated_at_ms=fake_holdings.NOW_MS,
        retry_of="",
    )
    screen.print(listing.task_table([task]))
    told = printed(screen)
    assert task.id in told
    # Folded over several lines, of which none ends early.
    assert "…" not in told
    assert max(map(len, told.splitlines())) <= NARROW


def test_cards_have_their_whole_names_when_the_terminal_is_narrow(
    screen: rich.console.Console,
) -> None:
    card = fake_holdings.card(LONG, "1.0.0", "a long name", 3, "latest", "production")
    screen.print(listing.card_table([card]))
    told = printed(screen)
    assert LONG in told and card.digest[:12] in told
    assert max(map(len, told.splitlines())) <= NARROW


@pytest.mark.parametrize(
    ("card", "told"),
    [("a@" + "0123456789abcdef" * 4, "a@0123456789ab"), ("a", "a"), ("", "")],
)
def test_card_is_named_by_as_much_as_commands_take(card: str, told: str) -> None:
    assert listing.short(card) == told


def test_bar_and_time_stay_when_the_detail_is_longer_than_the_terminal(
    screen: rich.console.Console,
) -> None:
    with following.Bars(screen) as bars:
        bars.show("starting", 0.5, "4 of 8 services answer", MISSING)
    *_, last = filter(str.strip, re.split(r"[\r\n]+", printed(screen)))
    assert "50%" in last and re.search(r"\d:\d\d:\d\d", last)
    assert len(re.findall("[━╸╺]", last)) == 30
    assert "4 of 8" in last and len(last) <= NARROW
