"""A node's agents on a tiny model, and a hierarchy in the same process at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence

from services.hierarchy import hierarchy
from services.inference import engine as engines
from services.inference.agents import (
    agents,
    attached,
    feedback,
    hierarchy_client,
    learner,
    ledger,
    roster,
    rounds,
)
from services.inference.agents import backend as backends
from shared import settings as config
from shared.hierarchy import agent, learning, levels, messages, wire
from shared.models import base as bases
from tests import tiny_model
from tests.unit.inference.agents import served

SPECS = {
    levels.Level.FOUNDATION: levels.Spec(5, 0.9),
    levels.Level.DOMAIN: levels.Spec(4, 0.8),
    levels.Level.SWARM: levels.Spec(3, 0.5),
    levels.Level.AGENT: levels.Spec(2, 0.3),
    levels.Level.CONTEXT: levels.Spec(2, 0.1),
}
RECIPE = learning.Recipe(steps=4, rows=2, rehearsed_rows=2, learning_rate=2e-2)
HELD = ("How high is it?", "What is the price?")
PAIR = feedback.Pair("Who built it?", "Ada did.")


def frame_of(base: bases.BaseModel) -> wire.Frame:
    return wire.Frame(attached.shapes_of(base, levels.DEFAULT_KINDS), SPECS)


class Line:
    """To a hierarchy in the process, which ticks when a test says so."""

    def __init__(self, shared: hierarchy.LoRAHierarchy) -> None:
        self.shared = shared
        self.connected = self.has_room = True
        self.followed: dict[str, hierarchy_client.Followed] = {}
        self.submitted: list[messages.Submission] = []
        self.news = asyncio.Event()

    def follow(self, agent: str, settled: int) -> None:
        at = hierarchy_client.Followed(settled, self.shared.last_sequence(agent), joined=True)
        self.followed[agent] = at

    def leave(self, agent: str) -> None:
        self.followed.pop(agent, None)

    def position(self, agent: str) -> hierarchy_client.Followed:
        return self.followed[agent]

    def submit(self, submission: messages.Submission) -> None:
        self.shared.submit(submission)
        self.submitted.append(submission)
        self.news.set()

    def waits(self, agent: str) -> bool:
        """Whether a submission is to be settled."""
        settled = self.followed[agent].settled
        return any(one.agent == agent and one.sequence > settled for one in self.submitted)

    async def tick(self, own: agents.Agents) -> None:
        await asyncio.to_thread(self.shared.system_tick)
        await own.take_snapshot(self.shared.snapshot())
        for name, at in list(self.followed.items()):
            for settlement in self.shared.settlements(name, at.settled):
                await own.take_settlement(settlement)
                at.settled = settlement.sequence


class Node:
    """What a test holds of a node that runs."""

    def __init__(
        self,
        engine: engines.ArrowEngine,
        backend: backends.LoRABackend,
        own: agents.Agents,
        known: roster.Roster,
        line: Line,
    ) -> None:
        self.engine, self.backend, self.own, self.known = engine, backend, own, known
        self.line = line

    async def ask(self, agent: str, query: str = PAIR.question) -> str:
        await self.own.prepare(agent)
        memory = self.own.compose(agent)
        assert memory is not None
        pieces = self.engine.stream(query, memory.key, capture=memory.capture)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    self.own.remember(agent, memory)
                    return piece.final.answer
        raise AssertionError("no last piece")

    async def until_submitted(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.line.submitted) < count:
                self.line.news.clear()
                await self.line.news.wait()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    folder: pathlib.Path,
    shared: hierarchy.LoRAHierarchy | None = None,
    most: int = 4,
    queue: int = 100,
    memory_bytes: int = 2**30,
    learning_settings: learner.LearnerSettings | None = None,
) -> AsyncIterator[Node]:
    base = tiny_model.tiny_base()
    frame = frame_of(base)
    line = Line(shared or hierarchy.LoRAHierarchy(frame))
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=12))
    kept = ledger.Ledger(folder / "agents.sqlite", most, queue, 50)
    backend = backends.LoRABackend(
        engine,
        served.reference(base),
        backends.BackendSettings(inputs=("model.layers.0.self_attn.q_proj",)),
    )
    known = roster.Roster(kept, frame, agent.AgentSettings(), 0, memory_bytes, backend.forget)
    learned = rounds.Rounds(engine, base, SPECS, RECIPE, folder, HELD)
    own = agents.Agents(
        kept, known, backend, learned, learning_settings or learner.LearnerSettings(rounds=2)
    )
    engine.start()
    own.start(line)
    try:
        yield Node(engine, backend, own, known, line)
    finally:
        await own.stop()
        await engine.stop()


async def learned(
    node: Node, agent: str = "ada", ticks: int = 6, pair: feedback.Pair = PAIR
) -> None:
    """Has an agent told something, and as many rounds learned and settled."""
    await node.own.take_snapshot(node.line.shared.snapshot())
    if agent not in await node.own.queued():
        await node.own.give_feedback(agent, "", [pair])
    for _ in range(ticks):
        await node.until(lambda: node.line.waits(agent))
        await node.line.tick(node.own)


def says(node: Node, by_agent: bool, by_shared: bool = True) -> list[feedback.Pair]:
    """Has all that is tried come out so, whatever was learned; returns what was tried."""
    asked: list[feedback.Pair] = []

    async def tried(layers: object, pairs: Sequence[feedback.Pair]) -> list[learner.Tried]:
        asked.extend(pairs)
        return [learner.Tried(by_agent, by_shared)] * len(pairs)

    node.own._learns.tried = tried  # type: ignore[method-assign]
    return asked
