"""The way of an answer's pieces from the model's thread to whoever waits."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from services.inference import generations, inboxes, likelihoods


@pytest.fixture
async def post() -> inboxes.Post:
    return inboxes.Post(asyncio.get_running_loop())


async def test_pieces_are_one_when_they_came_before_anybody_looked(post):
    inbox = inboxes.Inbox(post)
    told = [likelihoods.TokenLogprob(text, text.encode(), -1.0) for text in "ab"]
    for one in told:
        inbox.put(generations.Piece(one.text, logprobs=(one,)))
    assert await inbox.get() == (generations.Piece("ab", logprobs=tuple(told)), True)
    inbox.put(generations.Piece("c"))
    inbox.put(None)
    assert await inbox.get() == (generations.Piece("c"), False)


async def test_end_comes_without_a_piece_when_all_was_read(post):
    inbox = inboxes.Inbox(post)
    inbox.put(None)
    assert await inbox.get() == (None, False)


@pytest.mark.parametrize("interval_s", [0.0, 1e-4, 1e-3])
async def test_calls_keep_their_order_when_threads_give_them_while_they_are_made(interval_s):
    heard: list[tuple[str, int]] = []
    done = asyncio.Event()
    post = inboxes.Post(asyncio.get_running_loop(), interval_s)

    def give(name: str) -> None:
        for number in range(2_000):
            (post.later if number % 3 else post.soon)(heard.append, (name, number))

    threads = [threading.Thread(target=give, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0)
    post.later(done.set)
    await asyncio.wait_for(done.wait(), 30)
    for name in "ab":
        assert [number for one, number in heard if one == name] == list(range(2_000))


async def test_loop_is_woken_once_when_a_thread_gives_many_calls(post, monkeypatch):
    loop = asyncio.get_running_loop()
    wake, woken, heard = loop.call_soon_threadsafe, 0, []

    def counting(*arguments: Any, **options: Any) -> asyncio.Handle:
        nonlocal woken
        woken += 1
        return wake(*arguments, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
    for number in range(64):
        post.soon(heard.append, number)
    await asyncio.sleep(0.01)
    assert heard == list(range(64)) and woken == 1


async def test_pieces_between_the_first_and_the_end_travel_together():
    post = inboxes.Post(asyncio.get_running_loop(), interval_s=60)
    inbox, other = inboxes.Inbox(post), inboxes.Inbox(post)
    inbox.put(generations.Piece("a"))
    assert await inbox.get() == (generations.Piece("a"), True)
    inbox.put(generations.Piece("b"))
    inbox.put(generations.Piece("c"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(inbox.get(), 0.05)
    # What another answer can't wait for takes along what waits.
    other.put(generations.Piece("d"))
    assert await other.get() == (generations.Piece("d"), True)
    assert await inbox.get() == (generations.Piece("bc"), True)
    inbox.put(generations.Piece("e"))
    inbox.put(None)
    assert await inbox.get() == (generations.Piece("e"), False)


async def test_pieces_come_when_the_interval_is_over_and_after_a_rest():
    inbox = inboxes.Inbox(inboxes.Post(asyncio.get_running_loop(), interval_s=0.03))
    inbox.put(generations.Piece("a"))
    await inbox.get()
    inbox.put(generations.Piece("b"))
    assert await asyncio.wait_for(inbox.get(), 30) == (generations.Piece("b"), True)
    await asyncio.sleep(0.1)  # The rest behind "b" is over, and nothing came.
    inbox.put(generations.Piece("c"))
    assert await asyncio.wait_for(inbox.get(), 30) == (generations.Piece("c"), True)


async def test_rest_is_longer_when_many_answers_were_told(monkeypatch):
    loop, rests = asyncio.get_running_loop(), list[float]()
    monkeypatch.setattr(loop, "call_later", lambda delay_s, *_: rests.append(delay_s))
    for count in (1, 200):
        post = inboxes.Post(loop, interval_s=0.04)
        for one in [inboxes.Inbox(post) for _ in range(count)]:
            one.put(generations.Piece("a"))
            one.put(generations.Piece("b"))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rests == [0.04, pytest.approx(0.3)]


async def test_others_are_called_when_one_call_fails(post):
    heard: list[str] = []
    failed: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: failed.append(told))

    def fail() -> None:
        raise ValueError("of this one")

    post.soon(fail)
    post.soon(heard.append, "next")
    await asyncio.sleep(0.01)
    assert heard == ["next"] and len(failed) == 1


def test_nothing_happens_when_the_loop_has_closed():
    loop = asyncio.new_event_loop()
    post = inboxes.Post(loop)
    loop.close()
    post.soon(print, "never")
