"""The whole loop, seen through the console: a real cluster with tokens, a real browser.

Pictures are kept in `.artifacts/console/`.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from shared import grading
from tests.e2e import browsing
from tests.e2e.taught import lessons, schools

LEARN_MS = 180_000


@pytest.mark.parametrize("school", [schools.TOGETHER], indirect=True, ids=[schools.TOGETHER])
def test_whole_loop_is_seen_when_a_real_cluster_learns(school: schools.School) -> None:
    base = f"http://{school.local.settings.gateway.address}"
    with (
        browsing.browser() as browser,
        browsing.person(browser) as person,
        browsing.visit(person, base) as visit,
    ):
        watch_it_learn(visit, school.token)


def watch_it_learn(visit: browsing.Visit, token: str) -> None:
    """Signs in, asks, and sees the answer change."""
    page, fact = visit.page, lessons.SEEN[0]
    visit.open("/")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.get_by_label("Your question").fill(fact.question)
    page.keyboard.press("Enter")
    before = page.get_by_role("region", name="Answer before")
    expect(before.get_by_text("bare base model")).to_be_visible(timeout=LEARN_MS)
    told = before.locator(".answer-text")
    assert not grading.is_right(told.inner_text(), fact.answer)
    steps = page.get_by_role("list", name="Stages of the learning task")
    expect(steps).to_be_visible(timeout=LEARN_MS)
    visit.keep("loop-moving")
    after = page.get_by_role("region", name="Answer after")
    expect(after.get_by_text("skill card")).to_be_visible(timeout=LEARN_MS)
    assert grading.is_right(after.locator(".answer-text").inner_text(), fact.answer)
    visit.keep("loop-learned")
    visit.check()
    after.get_by_role("link").click()
    expect(page.get_by_text("Questions that caused it")).to_be_visible()
    expect(page.get_by_role("row", name="yes")).to_be_visible()
    visit.keep("loop-card")
    visit.check()
    for path, words in (("/tasks", "Learned"), ("/router", "Recent gaps"), ("/nodes", "ready")):
        visit.open(path)
        expect(page.get_by_text(words).first).to_be_visible()
        visit.keep(f"loop{path.replace('/', '-')}")
        visit.check()
