"""The console over a fake cluster, as tests of its pages use it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from playwright import sync_api

from services.gateway.cluster import cluster


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[str]:
    """The console over a fake cluster; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_console", *arguments],
        cwd=cluster.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        assert process.wait(30) == 0


def scene(base: str, name: str) -> None:
    post(base, f"scene/{name}")


def post(base: str, what: str) -> None:
    urllib.request.urlopen(urllib.request.Request(f"{base}/{what}", method="POST")).close()


def calls(base: str, what: str = "calls") -> Any:
    with urllib.request.urlopen(f"{base}/{what}") as reply:
        return json.load(reply)


def sign_in(page: sync_api.Page, base: str, token: str) -> None:
    """With a token; leads to the first page."""
    page.goto(f"{base}/console/sign-in")
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    sync_api.expect(page).to_have_url(f"{base}/console/")


def ask(page: sync_api.Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")


def ask_and_call_wrong(page: sync_api.Page, question: str) -> None:
    """Asks without learning, and says of the answer that it is wrong, but not what is right."""
    page.get_by_label("Learn what it does not know").uncheck()
    ask(page, question)
    page.get_by_role("button", name="Wrong").click()
    page.get_by_role("button", name="Send").click()
    sync_api.expect(page.get_by_text("It is learned anew below.")).to_be_visible()
