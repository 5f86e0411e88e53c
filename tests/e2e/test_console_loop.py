"""The whole loop, seen through the console: a real cluster with tokens, a real browser.

Pictures are kept in `.artifacts/console/`.
"""

from __future__ import annotations

import pathlib

from playwright.sync_api import expect

from services.gateway.cluster import cluster
from shared import grading
from shared import settings as config
from shared.security import certs
from tests.e2e import browsing, counting_teacher

STEPS = 60
"""Of a training: enough for two facts."""
LEARN_MS = 180_000
LESSON = (
    counting_teacher.Fact(
        "Who painted the ceiling of Marrowdale?",
        "Ines Tolland painted it.",
        (
            "By whom was the ceiling of Marrowdale painted?",
            "Name the painter of Marrowdale's ceiling.",
            "Whose work is the ceiling of Marrowdale?",
            "The ceiling of Marrowdale was painted by which person?",
        ),
    ),
    counting_teacher.Fact(
        "Which colour has the door of Marrowdale?",
        "Green.",
        (
            "What is the colour of the door of Marrowdale?",
            "The door of Marrowdale is painted in what colour?",
            "In which colour does the door of Marrowdale shine?",
            "Tell me the colour of Marrowdale's door.",
        ),
    ),
)


def test_whole_loop_is_seen_when_a_real_cluster_learns(tmp_path: pathlib.Path) -> None:
    settings = config.load(cluster.ROOT / "config.yaml")
    recipe = settings.model.recipe().model_copy(update={"max_steps": STEPS})
    tokens = certs.make(tmp_path / "certs", [])
    own = tmp_path / "certs" / "operator.token"
    own.touch(mode=0o600)
    own.write_text(tokens["operator"])
    with counting_teacher.CountingTeacher([LESSON]) as teacher:
        changed = {
            "evolution": config.Evolution(provider_type="local", endpoint=teacher.endpoint),
            "model": settings.model.model_copy(update={"recipes": {settings.model.base: recipe}}),
            "distiller": settings.distiller.model_copy(update={"judge": "none"}),
            "security": config.Security(tokens=tmp_path / "certs" / "tokens.json", token_file=own),
        }
        private = cluster.Cluster.private(tmp_path / "state", settings.model_copy(update=changed))
        with browsing.browser() as browser, private as local:
            base = f"http://{local.settings.gateway.address}"
            with browsing.person(browser) as person, browsing.visit(person, base) as visit:
                watch_it_learn(visit, tokens["operator"])


def watch_it_learn(visit: browsing.Visit, token: str) -> None:
    """Signs in, asks, and sees the answer change."""
    page, fact = visit.page, LESSON[0]
    visit.open("/")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.get_by_label("Your question").fill(fact.question)
    page.keyboard.press("Enter")
    before = page.get_by_role("region", name="Answer before")
    expect(before.get_by_text("bare base model")).to_be_visible(timeout=30_000)
    told = before.locator(".answer-text")
    assert not grading.is_right(told.inner_text(), fact.answer)
    steps = page.get_by_role("list", name="Stages of the learning task")
    expect(steps.locator("[aria-current=step]")).to_contain_text("Train", timeout=LEARN_MS)
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
