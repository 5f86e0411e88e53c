"""A headless browser for tests: pages whose log and requests are watched, and what is wrong in one.

Nothing here knows the console; see `test_console`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import urllib.parse
from collections.abc import Iterator

import pytest
from playwright import sync_api

ARTIFACTS = pathlib.Path(__file__).resolve().parents[2] / ".artifacts" / "console"
WIDE, NARROW = 1280, 390
_HEIGHT = 844
_LOCAL = ("data", "blob")
_PATIENCE_MS = 60_000
"""Other tests may have the machine's cores."""

AUDIT = """() => {
  const wrong = [];
  const shown = (one) => one.checkVisibility({visibilityProperty: true}) && !one.closest('.unseen');
  const parse = (color) => {
    const found = color.match(/[\\d.]+/g).map(Number);
    return color.startsWith('color(srgb') ? found.map((v, i) => (i < 3 ? v * 255 : v)) : found;
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => {
      v /= 255;
      return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const color = parse(getComputedStyle(one).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  for (const one of document.querySelectorAll('#app *')) {
    const words = [...one.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data).join('');
    if (!words.trim() || !shown(one) || one.namespaceURI.endsWith('svg')) continue;
    const style = getComputedStyle(one);
    if (one.matches('[disabled]')) continue;
    const [a, b] = [luminance(parse(style.color)), luminance(behind(one))].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.6 && style.fontWeight >= 700) ? 3 : 4.5;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least) wrong.push(`contrast ${ratio.toFixed(2)}: ${words.trim().slice(0, 40)}`);
  }
  for (const one of document.querySelectorAll('input, textarea, select')) {
    if (!one.labels?.length && !one.ariaLabel) wrong.push(`no label: ${one.outerHTML}`);
  }
  for (const one of document.querySelectorAll('a, button')) {
    if (!one.textContent.trim() && !one.ariaLabel) wrong.push(`no name: ${one.outerHTML}`);
  }
  let before = 0;
  for (const one of document.querySelectorAll('h1, h2, h3')) {
    const level = Number(one.tagName[1]);
    if (level > before + 1) wrong.push(`h${level} after h${before}: ${one.textContent}`);
    before = level;
  }
  if (document.querySelectorAll('h1').length !== 1) wrong.push('not one h1');
  if (document.querySelectorAll('main:not([role])').length !== 1) wrong.push('not one main');
  if (!document.documentElement.lang) wrong.push('no language');
  for (const one of document.querySelectorAll('table')) {
    if (!one.caption?.textContent) wrong.push('table without caption');
    if (!one.querySelector('th[scope=col]')) wrong.push('table without headers');
  }
  const ids = [...document.querySelectorAll('[id]')].map((one) => one.id);
  for (const id of ids.filter((id, place) => ids.indexOf(id) !== place)) wrong.push(`twice: ${id}`);
  return wrong;
}"""
"""What is wrong for those who see little, hear the page, or use no mouse."""


def chromium() -> str:
    """Where Chromium is; skips the test where it is nowhere."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium: install it (scripts/chromium.sh) or name it in CHROMIUM")
    return found


@contextlib.contextmanager
def browser() -> Iterator[sync_api.Browser]:
    """A browser until left."""
    path = chromium()
    sync_api.expect.set_options(timeout=_PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


class Visit:
    """One page, and what it did that it should not."""

    def __init__(self, context: sync_api.BrowserContext, base: str, width: int) -> None:
        self.base = base
        self.context = context
        self.page = context.new_page()
        self.resize(width)
        self.log: list[str] = []
        self.elsewhere: list[str] = []
        self._host = urllib.parse.urlsplit(base).netloc
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.log.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))
        self.page.on("websocket", lambda socket: self._asked(socket.url))

    def resize(self, width: int) -> None:
        """As if a phone were turned or a window dragged."""
        self.page.set_viewport_size({"width": width, "height": _HEIGHT})

    def open(self, path: str) -> None:
        """Goes to a page of the console, and waits until it is alive."""
        self.page.goto(f"{self.base}/console{path}")
        self.page.wait_for_function("window.socket?.connected && window.did_handshake")

    def keep(self, name: str) -> None:
        """A picture for people."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True, animations="disabled")

    def check(self) -> None:
        """That nothing is wrong: the log, other hosts, the width, and `AUDIT`."""
        assert self.log == [] and self.elsewhere == [], (self.log, self.elsewhere)
        wide = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        scrolled, shown = self.page.evaluate(wide)
        assert scrolled <= shown, f"{scrolled} pixels on a screen of {shown}"
        wrong = self.page.evaluate(AUDIT)
        assert wrong == [], wrong

    def _said(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.log.append(message.text)

    def _asked(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _LOCAL and parts.netloc != self._host:
            self.elsewhere.append(url)


@contextlib.contextmanager
def person(started: sync_api.Browser) -> Iterator[sync_api.BrowserContext]:
    """Somebody who comes anew: no cookie, nothing in the cache, nothing remembered."""
    context = started.new_context(color_scheme="light")
    context.set_default_timeout(_PATIENCE_MS)
    try:
        yield context
    finally:
        context.close()


@contextlib.contextmanager
def visit(context: sync_api.BrowserContext, base: str, width: int = WIDE) -> Iterator[Visit]:
    """A page of somebody's, closed when left."""
    coming = Visit(context, base, width)
    try:
        yield coming
    finally:
        coming.page.close()
