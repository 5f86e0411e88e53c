"""Takes the pictures of docs/tour.md: `python scripts/tour_pictures.py`, with Chromium installed.

Starts a cluster of its own that knows the demo's document, does at its console what the tour
tells, and writes docs/pictures/*.png. Everything in them happened; it learns twice meanwhile.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import tempfile

from playwright import sync_api

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from services.gateway.cluster import cluster, urls  # noqa: E402
from shared import settings as config  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
DOCUMENT = ROOT / "services/gateway/command_line/demo_material/quillhaven.md"
QUESTION = "How many steps does the Lantern Tower have?"
RIGHT = "It has 220 steps."
"""Since the tower was rebuilt; the document does not know it."""
_WIDTH, _HEIGHT = 1280, 800
_MOST_BYTES = 250_000
_LEARN_MS = 1_500_000
_PATIENCE_MS = 120_000


class Tour:
    """One visit of the console."""

    def __init__(self, page: sync_api.Page, base: str) -> None:
        """Takes where the console is."""
        self._page, self._base = page, base

    def take(self, name: str) -> None:
        """Writes one picture.

        Raises:
            SystemExit: it is larger than a page of documentation should load.
        """
        path = PICTURES / f"{name}.png"
        self._page.mouse.move(0, 0)
        self._page.screenshot(path=path, full_page=True, animations="disabled")
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB", flush=True)
        if path.stat().st_size > _MOST_BYTES:
            raise SystemExit(f"{path} has more than {_MOST_BYTES} bytes")

    def open(self, path: str) -> None:
        """Goes to a page and waits until it is alive."""
        self._page.goto(self._base + path)
        self._page.wait_for_function("window.socket?.connected && window.did_handshake")

    def learn(self) -> None:
        """Asks what nobody knows, and waits for the card."""
        page = self._page
        self.open("/")
        self.take("ask")
        self._ask(QUESTION)
        steps = page.get_by_role("list", name="Stages of the learning task")
        train = steps.locator("[aria-current=step]").filter(has_text="Train")
        train.wait_for(timeout=_LEARN_MS)
        self.take("learning")
        self._answered("Answer after", _LEARN_MS)
        self.take("learned")

    def look_at_the_card(self) -> None:
        """Follows the link of the answer."""
        after = self._page.get_by_role("region", name="Answer after")
        after.get_by_role("link").click()
        self._see("Wordings it never saw")
        self.take("card")

    def correct(self) -> None:
        """Says what is right, and waits until the card's next version answers so."""
        page = self._page
        self.open("/")
        self._ask(QUESTION)
        self._answered("Answer", _PATIENCE_MS)
        page.get_by_role("button", name="Wrong").click()
        page.get_by_label("The right answer is …").fill(RIGHT)
        self.take("correcting")
        page.get_by_role("button", name="Send").click()
        self._answered("Answer after", _LEARN_MS)
        page.get_by_role("region", name="Answer after").get_by_role("button", name="Right").click()
        self._see("Counted as right")
        self.take("corrected")
        page.get_by_role("region", name="Answer after").get_by_role("link").first.click()
        # The last parts of the pages to come: what stands there before is not their data.
        self._see("1 wrong")
        self._see("Wordings it never saw")
        self.take("versions")

    def look_around(self) -> None:
        """Nodes and router."""
        for name, words in (("nodes", "Ready in"), ("router", QUESTION)):
            self.open(f"/{name}")
            self._see(words)
            self.take(name)

    def _ask(self, question: str) -> None:
        self._page.get_by_label("Your question").fill(question)
        self._page.keyboard.press("Enter")

    def _answered(self, region: str, within_ms: float) -> None:
        panel = self._page.get_by_role("region", name=region, exact=True)
        panel.get_by_text("skill card").wait_for(timeout=within_ms)
        self._page.get_by_text("A card fits", exact=True).wait_for(timeout=_PATIENCE_MS)

    def _see(self, words: str) -> None:
        self._page.get_by_text(words).first.wait_for(timeout=_PATIENCE_MS)


def main() -> None:
    """Takes all pictures."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        raise SystemExit("no Chromium: install it (scripts/chromium.sh) or name it in CHROMIUM")
    PICTURES.mkdir(exist_ok=True)
    teacher = config.Evolution(provider_type="documents")
    settings = config.load(ROOT / "config.yaml").model_copy(update={"evolution": teacher})
    with tempfile.TemporaryDirectory(prefix="skillmesh-tour-") as folder:
        knowledge = pathlib.Path(folder) / "knowledge"
        knowledge.mkdir()
        shutil.copy(DOCUMENT, knowledge)
        private = cluster.Cluster.private(pathlib.Path(folder), settings)
        with private as local, sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--hide-scrollbars"]
            )
            page = browser.new_page(
                viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light"
            )
            page.set_default_timeout(_PATIENCE_MS)
            tour = Tour(page, urls.console_url(local.settings).rstrip("/"))
            tour.learn()
            tour.look_at_the_card()
            tour.correct()
            tour.look_around()
            browser.close()


if __name__ == "__main__":
    main()
