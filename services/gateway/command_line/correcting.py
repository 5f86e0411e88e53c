"""`correct`: what is right where an answer was wrong; the factory has it learned."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import asking, card_page, following, listing
from shared import settings as config
from shared import terminal

_USAGE = 'make correct q="…" answer="…"'


@dataclasses.dataclass(frozen=True)
class _Wrong:
    """The answer that is corrected."""

    text: str
    card: str
    """`name@digest`; empty: the bare base model."""


async def correct(
    question: str, right: str, card: str, said: str, wait: bool, as_json: bool
) -> None:
    """Corrects an answer, and, if wanted, waits until that is learned.

    Args:
        question: that was asked.
        right: the answer to it.
        card: that gave the wrong one, as `cards show` takes it; empty: whoever answers now, which
            is asked to find out.
        said: the wrong answer; empty: what is said now, or unknown where the card is named.
        wait: for the learning task; then ask again.
        as_json: print one JSON object.

    Raises:
        terminal.UsageError: the question or its answer is missing.
        terminal.FailedError: nothing is learned of it, or the learning failed.
    """
    if not question.strip() or not right.strip():
        raise terminal.UsageError(f"the question or its right answer is missing: {_USAGE}")
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    key = uuid.uuid4().hex
    async with peers.connected(settings) as services:
        wrong = await peers.while_restarting(lambda: _wrong(services, question, card, said), alive)
        taken = await peers.while_restarting(
            lambda: services.factory.feedback(
                key, question, answer=wrong.text, card=wrong.card, correction=right
            ),
            alive,
        )
        told = {"task_id": taken.task_id or None, "card": wrong.card, "said": wrong.text}
        if not taken.task_id:
            if as_json:
                terminal.print_json(told | {"now": None})
            raise terminal.FailedError(taken.reason or "nothing is learned of it")
        if not as_json:
            _say(wrong, taken.task_id)
        if not wait:
            if as_json:
                terminal.print_json(told | {"now": None})
            return
        task = (await following.until_learned(services, [taken.task_id]))[0]
        asking.check(task)
        now = await peers.while_restarting(
            lambda: services.inference.ask(question, no_learning=True), alive
        )
    _show(now, told, as_json)


async def _wrong(services: peers.Peers, question: str, card: str, said: str) -> _Wrong:
    if card:
        found = (await card_page.found(services, card)).card
        return _Wrong(said, f"{found.name}@{found.digest}")
    answer = await services.inference.ask(question, no_learning=True)
    return _Wrong(said or answer.text, answer.card)


def _say(wrong: _Wrong, task_id: str) -> None:
    who = listing.short(wrong.card) or "the bare base model"
    what = f": {wrong.text}" if wrong.text else ""
    terminal.RESULT.print(terminal.escape(f"corrects {who}{what}"), style="dim", soft_wrap=True)
    terminal.RESULT.print(f"learning it: task {task_id} (`make tasks` follows it)", style="dim")


def _show(now: domain.Answer, told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        terminal.print_json(told | {"now": {"answer": now.text, "card": now.card}})
        return
    terminal.RESULT.print(terminal.escape(now.text), style="bold")
    who = listing.short(now.card) or "the bare base model"
    terminal.RESULT.print(terminal.escape(f"answered by {who}"), style="dim")
