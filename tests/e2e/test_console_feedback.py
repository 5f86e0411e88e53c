"""What somebody says of an answer at the console, in a real browser, over a fake cluster."""

from __future__ import annotations

import pytest
from playwright import sync_api
from playwright.sync_api import expect

from tests import fake_cluster
from tests.e2e import browsing, consoles

BETTER = "Ilsa Varn founded it in 1873."


def test_correction_is_learned_on_the_page_and_the_question_asked_again(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        page = visit.page
        visit.open("/")
        consoles.ask(page, fake_cluster.QUESTION)
        consoles.post(base, "trained")
        after = page.get_by_role("region", name="Answer after")
        expect(after.get_by_text(fake_cluster.ANSWER)).to_be_visible()
        after.get_by_role("button", name="Wrong").click()
        box = after.get_by_label("The right answer is …")
        expect(box).to_be_focused()
        visit.keep("correcting")
        visit.check()
        box.fill(BETTER)
        page.keyboard.press("Enter")
        before = page.get_by_role("region", name="Answer before")
        # The answer that was corrected is the one before now, and the bare model's is gone.
        expect(before.get_by_text(fake_cluster.ANSWER)).to_be_visible()
        expect(
            before.get_by_text(f"Counted as wrong for {fake_cluster.QUILLHAVEN}.")
        ).to_be_visible()
        expect(page.get_by_text(fake_cluster.UNKNOWN)).to_have_count(0)
        expect(after.get_by_text(BETTER)).to_be_visible()
        expect(page.get_by_role("list", name="Stages of the learning task")).to_have_count(1)
        visit.keep("corrected")
        visit.check()
        for width in (browsing.NARROW, browsing.WIDE):
            visit.resize(width)
            visit.check()
        card = fake_cluster.CARDS[0].reference
        wrong = ["wrong", fake_cluster.QUESTION, fake_cluster.ANSWER, card, BETTER]
        assert consoles.calls(base) == [wrong]


def test_question_is_learned_anew_when_its_answer_is_wrong_and_nobody_knows_the_right_one(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask_and_call_wrong(visit.page, fake_cluster.QUESTION)
        consoles.post(base, "trained")
        after = visit.page.get_by_role("region", name="Answer after")
        expect(after.get_by_text(fake_cluster.ANSWER)).to_be_visible()
        [said] = consoles.calls(base)
        assert said == ["wrong", fake_cluster.QUESTION, fake_cluster.UNKNOWN, "", ""]


def test_right_answer_is_counted_once(anybody: sync_api.BrowserContext, base: str) -> None:
    with browsing.visit(anybody, base) as visit:
        visit.open("/")
        consoles.ask(visit.page, "How is the weather?")
        wrong = visit.page.get_by_role("button", name="Wrong")
        wrong.click()
        visit.page.get_by_role("button", name="Never mind").click()
        visit.page.get_by_role("button", name="Right").click()
        expect(visit.page.get_by_text("Counted as right for the bare base model.")).to_be_visible()
        expect(wrong).to_have_count(0)
        visit.check()
        [said] = consoles.calls(base)
        assert said == ["right", "How is the weather?", fake_cluster.UNKNOWN, ""]


def test_reason_is_told_when_a_correction_is_not_learned_or_does_not_get_through(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    with browsing.visit(anybody, base) as visit:
        page = visit.page
        visit.open("/")
        consoles.ask(page, "How is the weather?")
        page.get_by_role("button", name="Wrong").click()
        page.get_by_label("The right answer is …").fill("ask ann@example.org")
        consoles.scene(base, "down")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("The factory does not answer.")).to_be_visible()
        # What was typed is still there to be sent again.
        consoles.scene(base, "full")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_text("Nothing is learned: it holds personal data")).to_be_visible()
        expect(page.get_by_text("The factory does not answer.")).to_have_count(0)
        visit.check()


@pytest.mark.parametrize(("name", "times"), [("ulla", 0), ("tom", 1)])
def test_answers_are_judged_by_those_alone_whose_role_may(
    browser: sync_api.Browser, guarded: str, name: str, times: int
) -> None:
    with browsing.person(browser) as person, browsing.visit(person, guarded) as visit:
        consoles.sign_in(visit.page, guarded, f"{name}-token")
        consoles.ask(visit.page, "How is the weather?")
        expect(visit.page.get_by_text("confidence that a card fits 0.07")).to_be_visible()
        for button in ("Right", "Wrong"):
            expect(visit.page.get_by_role("button", name=button)).to_have_count(times)


def test_card_tells_how_often_it_was_called_right_and_wrong(
    anybody: sync_api.BrowserContext, base: str
) -> None:
    path = f"/cards/{fake_cluster.QUILLHAVEN}"
    with browsing.visit(anybody, base) as visit:
        visit.open(path)
        row = visit.page.get_by_role("row", name="look at 1.1.0")
        expect(row.get_by_text("1,204 right")).to_be_visible()
        expect(row.get_by_text("3 wrong")).to_be_visible()
        expect(visit.page.get_by_role("row", name="look at 1.0.0")).not_to_contain_text("wrong")
        visit.check()
        # Without the factory the page is the same but for that.
        consoles.scene(base, "unjudged")
        visit.open(path)
        expect(row.get_by_text("latest")).to_be_visible()
        expect(visit.page.get_by_text("1,204 right")).to_have_count(0)
        visit.check()
