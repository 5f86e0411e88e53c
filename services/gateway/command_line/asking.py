"""`ask`: one question to the running cluster, and, if wanted, the wait until it is learned."""

from __future__ import annotations

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.cluster import cluster
from services.gateway.command_line import following, listing
from shared import settings as config
from shared import terminal

_SHARED = "shared"
"""Whose memory an agent has that was told nothing on the node."""
_FIND_S, _PATIENT_FIND_S = 3.0, 30.0
_UNDECIDED = "no learning task came of it yet; `make tasks` shows it once there is one"
_NOT_LEARNED = (
    "nothing is learned: learning is switched off (router.learn_from_questions, "
    "router.no_learning_tenants), or somebody else's card answers this; to have it learned all the "
    'same: make teach topic="…"'
)


async def ask(question: str, wait: bool, as_json: bool, agent: str = "") -> None:
    """Asks and prints the answer.

    Args:
        question: what.
        wait: where learning began, wait for it and ask again.
        as_json: print one JSON object.
        agent: whose memory answers; empty for none.

    Raises:
        terminal.FailedError: the learning failed.
    """
    if not question.strip():
        raise terminal.UsageError('a question is missing: make ask q="What is a skill card?"')
    settings = config.load()
    alive = cluster.Cluster(settings).supervisor.alive
    async with peers.connected(settings) as services:

        async def put() -> domain.Answer:
            return await services.inference.ask(question, agent=agent)

        answer = await peers.while_restarting(put, alive)
        # Programs want the task, people first of all the answer.
        task = await _task(services, answer, _PATIENT_FIND_S if wait or as_json else _FIND_S)
        if task is None:
            reason = await _reason(services, answer)
            _show(answer, task, as_json, reason)
            if answer.dissonance and not reason:
                if wait:
                    raise terminal.FailedError(
                        "no learning task came of the question: see `make logs`"
                    )
                if not as_json:
                    terminal.RESULT.print(_UNDECIDED, style="dim", soft_wrap=True)
            return
        if not wait:
            _show(answer, task, as_json)
            return
        if not as_json:
            _show(answer, task, as_json)
        task = (await following.until_learned(services, [task.id]))[0]
        if task.status == domain.COMPLETED:
            answer = await peers.while_restarting(
                lambda: services.inference.ask(question, agent=agent), alive
            )
        _show(answer, task, as_json)
    check(task)


def check(task: domain.Task) -> None:
    """Makes a task that did not end well an error of the command.

    Raises:
        terminal.FailedError: names the task and the reason.
    """
    if task.status != domain.COMPLETED:
        reason = task.error or "no reason given"
        raise terminal.FailedError(f"task {task.id} is {task.status}: {reason}")


async def _task(services: peers.Peers, answer: domain.Answer, find_s: float) -> domain.Task | None:
    if not answer.event_id:
        return None
    return await services.factory.find_task(answer.event_id, find_s)


async def _reason(services: peers.Peers, answer: domain.Answer) -> str:
    """Why nothing is learned from a question; empty where that is not known."""
    if answer.event_id:
        return await services.factory.reason_for_no_task(answer.event_id)
    return _NOT_LEARNED if answer.dissonance else ""


def _show(answer: domain.Answer, task: domain.Task | None, as_json: bool, reason: str = "") -> None:
    if as_json:
        terminal.print_json(
            {
                "answer": answer.text,
                "card": answer.card,
                "confidence": answer.confidence,
                **({"memory": answer.memory} if answer.memory else {}),
                "rewritten_query": answer.rewritten_query or None,
                "dissonance": answer.dissonance,
                "task_id": task.id if task else None,
                **({"not_learned": reason} if reason else {}),
                **({"cards": dict(answer.shares)} if len(answer.shares) > 1 else {}),
            }
        )
        return
    who = listing.short(answer.card) or "the bare base model"
    if len(answer.shares) > 1:
        who = ", ".join(f"{listing.short(card)} ({weight:.0%})" for card, weight in answer.shares)
    if answer.memory.startswith(f"{_SHARED}@"):
        version = answer.memory.partition("@")[2]
        who += f" with what all agents share (version {version}): this one was told nothing here"
    elif answer.memory:
        who += f" with the memory of {answer.memory}"
    terminal.RESULT.print(terminal.escape(answer.text), style="bold")
    about = [f"answered by {who}, confidence that a card fits {answer.confidence:.2f}"]
    if answer.rewritten_query:
        about.append(f"read as: {answer.rewritten_query}")
    if reason:
        about.append(reason)
    if task is not None and not task.ended:
        about.append(f"learning it: task {task.id} (`make tasks` follows it)")
        if task.status == "PENDING" and task.detail:
            about.append(task.detail)
    for line in about:
        terminal.RESULT.print(terminal.escape(line), style="dim", soft_wrap=True)
