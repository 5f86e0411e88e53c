"""The console in a real browser, over a fake cluster; `test_console_loop` has a real one.

Pictures are kept in `.artifacts/console/`.
"""

from __future__ import annotations

import time
import urllib.request

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import fake_cluster
from tests.e2e import browsing, consoles

CARD = f"/cards/{fake_cluster.QUILLHAVEN}"
PAGES = {
    "ask": ("/", "What will happen"),
    "cards": ("/cards", "Answers questions about Brindlemoor"),
    "card": (CARD, "Wordings it never saw"),
    "tasks": ("/tasks", "Which comet did Solvik find first?"),
    "task": ("/tasks/task-3", "Learned."),
    "task-failed": ("/tasks/task-4", "Nothing was learned."),
    "router": ("/router", "good, 412 questions"),
    "hierarchy": ("/hierarchy", "healthy from 0.8 on"),
    "nodes": ("/nodes", "3 failures in a row"),
}
"""Path of each, and words that are there once its data are."""
EMPTY = {
    "/cards": "No card yet",
    "/tasks": "Nothing was ever learned here",
    "/router": "Nothing to measure yet",
    "/hierarchy": "No layers yet",
    "/nodes": "No node is known",
}
SILENT = {
    "/cards": "The card store does not answer.",
    CARD: "The card store does not answer.",
    "/tasks": "The factory does not answer.",
    "/tasks/task-3": "The factory does not answer.",
    "/router": "The router does not answer.",
    "/hierarchy": "The hierarchy does not answer.",
}
EVERY_S = 1.5
"""How often the tasks are asked for."""


@pytest.mark.parametrize("name", PAGES)
def test_page_is_well_when_it_is_opened_on_any_screen_in_any_light(
    anybody: sync_api.BrowserContext, base: str, name: str
) -> None:
    path, words = PAGES[name]
    with browsing.visit(anybody, base) as visit:
        visit.open(path)
        expect(visit.page.get_by_text(words).first).to_be_visible()
        for width, theme in (
            (browsing.WIDE, "light"),
            (browsing.WIDE, "dark"),
            (browsing.NARROW, "dark"),
            (browsing.NARROW, "light"),
        ):
            visit.resize(width)
            visit.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            if (width, theme) in ((browsing.WIDE, "light"), (browsing.NARROW, "dark")):
                visit.keep(f"{name}-{width}-{theme}")
            visit.check()


def test_question_is_answered_again_by_the_card_when_it_was_learned(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask(visit.page, fake_cluster.QUESTION)
        before = visit.page.get_by_role("region", name="Answer before")
        expect(before.get_by_text(fake_cluster.UNKNOWN)).to_be_visible()
        expect(before.get_by_text("bare base model")).to_be_visible()
        route = visit.page.get_by_role("region", name="Route")
        expect(route.get_by_text("No card fits")).to_be_visible()
        steps = visit.page.get_by_role("list", name="Stages of the learning task")
        expect(steps.locator("[aria-current=step]")).to_contain_text("Train")
        visit.keep("ask-moving")
        consoles.post(base, "trained")
        after = visit.page.get_by_role("region", name="Answer after")
        expect(after.get_by_text(fake_cluster.ANSWER)).to_be_visible()
        expect(after.get_by_text("skill card")).to_be_visible()
        expect(route.get_by_text("A card fits", exact=True)).to_be_visible()
        # Read out whole, once.
        said = visit.page.get_by_role("status").filter(has_text="answers:")
        expect(said).to_have_text(f"{fake_cluster.QUILLHAVEN} answers: {fake_cluster.ANSWER}")
        visit.keep("ask-learned")
        visit.check()


def test_reason_is_told_when_nothing_is_learned(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask(visit.page, "How is the weather?")
        expect(visit.page.get_by_text("The base model is sure of its answer")).to_be_visible()
        # No other answer comes, so that this one is none before it.
        expect(visit.page.get_by_role("region", name="Answer", exact=True)).to_be_visible()
        expect(visit.page.get_by_role("region", name="Answer before")).to_have_count(0)
        visit.page.get_by_label("Learn what it does not know").uncheck()
        consoles.ask(visit.page, "Who is the mayor?")
        answer = visit.page.get_by_role("region", name="Answer", exact=True)
        expect(answer.get_by_text("confidence that a card fits 0.07")).to_be_visible()
        expect(visit.page.get_by_role("region", name="Learning task")).to_have_count(0)
        visit.check()


def test_recent_gaps_are_what_no_card_fitted_when_an_answer_was_corrected(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask_and_call_wrong(visit.page, fake_cluster.QUESTION)
        corrected = visit.page.get_by_role("link", name=fake_cluster.QUESTION)
        visit.open("/tasks")
        expect(corrected).to_be_visible()
        visit.open("/router")
        noticed = visit.page.get_by_role("link", name=fake_cluster.TASKS[0].trigger_query)
        expect(noticed).to_be_visible()
        expect(corrected).to_have_count(0)


def test_task_took_no_time_yet_when_it_still_moves(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/tasks")
        rows = visit.page.get_by_role("row")
        learned = rows.filter(has_text="Which family casts the bells")
        expect(learned).to_contain_text("took 1 min 26 s")
        expect(rows.filter(has_text="Which comet did Solvik")).not_to_contain_text("took")
        visit.open("/tasks/task-1")
        expect(visit.page.get_by_text("6.6 s so far")).to_be_visible()


def test_words_of_the_exam_are_whole_when_the_screen_is_narrow(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base, browsing.NARROW) as visit:
        visit.open(CARD)
        words = visit.page.get_by_role("cell", name="Unrelated questions unchanged")
        expect(words).to_be_visible()
        # A line for each word at most: none is broken.
        lines = words.evaluate(
            "(one) => { const all = document.createRange(); all.selectNodeContents(one);"
            " return new Set([...all.getClientRects()].map((line) => line.top)).size; }"
        )
        assert lines <= 3
        visit.check()


def test_answer_is_text_when_it_looks_like_markup(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask(visit.page, "<img src=x onerror=\"console.error('run')\"> ${7*7} `{{ 7*7 }}`")
        steps = visit.page.get_by_role("list", name="Stages of the learning task")
        expect(steps).to_be_visible()
        visit.open("/tasks")
        expect(visit.page.get_by_text("${7*7} `{{ 7*7 }}`")).to_be_visible()
        visit.check()


@pytest.mark.parametrize("path", EMPTY)
def test_next_thing_to_do_is_told_when_nothing_is_there(
    anybody: sync_api.BrowserContext, base: str, path: str
) -> None:
    consoles.scene(base, "empty")
    with browsing.visit(anybody, base, browsing.NARROW) as visit:
        visit.open(path)
        expect(visit.page.get_by_text(EMPTY[path])).to_be_visible()
        visit.keep(f"empty{path.replace('/', '-')}")
        visit.check()


@pytest.mark.parametrize("path", SILENT)
def test_trouble_is_told_calmly_and_ends_when_the_service_is_back(
    anybody: sync_api.BrowserContext, base: str, path: str
) -> None:
    consoles.scene(base, "down")
    with browsing.visit(anybody, base) as visit:
        visit.open(path)
        notice = visit.page.get_by_text(SILENT[path])
        expect(notice).to_be_visible()
        assert "addresses" not in visit.page.content()
        visit.check()
        consoles.scene(base, "full")
        expect(notice).to_have_count(0)


def test_card_is_promoted_rolled_back_and_revoked_when_it_is_confirmed(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    old = fake_cluster.CARDS[1].digest
    with browsing.visit(anybody, base) as visit:
        page = visit.page
        visit.open(CARD)
        page.get_by_role("button", name="Promote: version 1.0.0").click()
        page.get_by_role("button", name="Keep as it is").click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert consoles.calls(base) == []
        page.get_by_role("button", name="Promote: version 1.0.0").click()
        page.get_by_role("dialog").get_by_role("button", name="Promote").click()
        expect(page.get_by_text("latest points to version 1.0.0 now.")).to_be_visible()
        expect(page.get_by_role("row", name="1.0.0").get_by_text("latest")).to_be_visible()
        page.get_by_role("button", name="Roll back").click()
        page.get_by_role("dialog").get_by_role("button", name="Roll back").click()
        expect(page.get_by_role("row", name="1.1.0").get_by_text("latest")).to_be_visible()
        page.get_by_role("button", name="Revoke: version 1.0.0").click()
        page.get_by_label("Why (for the log)").fill("leaked")
        visit.keep("dialog")
        visit.check()
        page.get_by_role("button", name="Revoke for ever").click()
        expect(page.get_by_role("button", name="look at 1.0.0")).to_have_count(0)
        assert consoles.calls(base) == [
            ["promote", fake_cluster.QUILLHAVEN, "latest", old],
            ["roll_back", fake_cluster.QUILLHAVEN, "latest"],
            ["revoke", old, "leaked"],
        ]


def test_task_is_cancelled_and_retried_when_it_is_asked_for(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/tasks")
        visit.page.get_by_role("button", name="Failed").click()
        expect(visit.page.get_by_text("Which comet")).to_have_count(0)
        visit.page.get_by_role("button", name="Moving").click()
        visit.page.get_by_role("button", name="Cancel: Which comet did Solvik").click()
        visit.page.get_by_role("button", name="Cancel the task").click()
        visit.page.get_by_role("button", name="Failed").click()
        visit.page.get_by_role("button", name="Retry").click()
        expect(visit.page).to_have_url(f"{base}/console/tasks/task-9")
        assert consoles.calls(base) == [["cancel", "task-1"], ["retry", "task-4"]]


def test_everything_is_reached_when_only_keys_are_used(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        page = visit.page
        visit.open("/cards")
        expect(page.get_by_role("link", name="sqlite-tuning")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_label("Find cards by name or subject")).to_be_focused()
        page.keyboard.type("bells")
        expect(page.get_by_role("link", name="sqlite-tuning")).to_have_count(0)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{base}/console/cards/brindlemoor")
        visit.open(CARD)
        button = page.get_by_role("button", name="Revoke: version 1.0.0")
        button.focus()
        # What is polled meanwhile leaves the focus where it is.
        page.wait_for_timeout(3500)
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_label("Why (for the log)")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert consoles.calls(base) == []


def test_pages_are_found_when_the_address_alone_is_typed(base: str) -> None:
    with urllib.request.urlopen(base) as reply:
        assert reply.url == f"{base}/console/"


def test_theme_follows_the_system_until_it_is_toggled(browser: sync_api.Browser, base: str) -> None:
    def colour() -> str:
        return str(visit.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with browsing.person(browser) as person, browsing.visit(person, base) as visit:
        visit.open("/")
        light = colour()
        visit.page.emulate_media(color_scheme="dark")
        dark = colour()
        assert light != dark
        toggle = visit.page.get_by_role("button", name="Dark theme")
        toggle.click()
        assert colour() == light
        expect(toggle).to_have_attribute("aria-pressed", "false")
        visit.open("/cards")
        assert colour() == light
        visit.page.get_by_role("button", name="Dark theme").click()
        assert colour() == dark


def test_token_is_asked_for_when_tokens_are_on(browser: sync_api.Browser, guarded: str) -> None:
    with (
        browsing.person(browser) as person,
        browsing.visit(person, guarded, browsing.NARROW) as visit,
    ):
        page = visit.page
        visit.open("/cards")
        expect(page).to_have_url(f"{guarded}/console/sign-in")
        visit.keep("sign-in")
        visit.check()
        page.get_by_label("Token").fill("somebody-else")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("Nobody is known by this token.")
        page.get_by_label("Token").fill("olga-token")
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{guarded}/console/")
        assert "olga-token" not in page.content()
        [cookie] = visit.context.cookies()
        assert cookie["httpOnly"] and cookie["sameSite"] == "Lax"
        visit.open(CARD)
        expect(page.get_by_role("button", name="Roll back")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page).to_have_url(f"{guarded}/console/sign-in")
        # Whoever kept the cookie has nothing: the session ended on the server.
        visit.context.add_cookies([cookie])  # type: ignore[list-item]
        visit.open("/tasks")
        expect(page).to_have_url(f"{guarded}/console/sign-in")


@pytest.mark.parametrize(("token", "times"), [("olga-token", 2), ("ulla-token", 0)])
def test_nodes_tell_of_cards_that_the_caller_may_see(
    browser: sync_api.Browser, guarded: str, token: str, times: int
) -> None:
    with browsing.person(browser) as person, browsing.visit(person, guarded) as visit:
        consoles.sign_in(visit.page, guarded, token)
        visit.open("/nodes")
        expect(visit.page.get_by_text(fake_cluster.QUILLHAVEN).first).to_be_visible()
        # Among those in memory, and among those taken in.
        expect(visit.page.get_by_text(fake_cluster.OF_A_TENANT)).to_have_count(times)


def test_buttons_are_absent_when_the_role_has_no_right_to_them(
    browser: sync_api.Browser, guarded: str
) -> None:
    with browsing.person(browser) as person, browsing.visit(person, guarded) as visit:
        consoles.sign_in(visit.page, guarded, "ulla-token")
        expect(visit.page.get_by_text("ulla · user")).to_be_visible()
        visit.open(CARD)
        expect(visit.page.get_by_text("Wordings it never saw")).to_be_visible()
        for name in ("Roll back", "Promote", "Revoke", "Mark production"):
            expect(visit.page.get_by_role("button", name=name)).to_have_count(0)
        visit.open("/tasks")
        expect(visit.page.get_by_text("Which comet")).to_be_visible()
        visit.open("/nodes")
        for name in ("Cancel", "Retry"):
            expect(visit.page.get_by_role("button", name=name)).to_have_count(0)
        visit.open("/hierarchy")
        expect(visit.page.get_by_text("It is switched off")).to_be_visible()
        visit.keep("hierarchy-off")
        visit.check()


def test_polling_ends_when_the_page_is_closed(anybody: sync_api.BrowserContext, base: str) -> None:
    # The last of these tests: pages are now forgotten at once.
    consoles.post(base, "impatient")
    with browsing.visit(anybody, base) as visit:
        visit.open("/tasks")
        expect(visit.page.get_by_text("Which comet")).to_be_visible()
        first = consoles.calls(base, "polls")
        while consoles.calls(base, "polls") == first:
            visit.page.wait_for_timeout(100)
    before, now = -1, consoles.calls(base, "polls")
    while before != now:
        time.sleep(2 * EVERY_S)
        before, now = now, consoles.calls(base, "polls")
