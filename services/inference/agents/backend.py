"""`LoRABackend`: generation with an agent's memory, the five layers frozen at one version.

Each version of an agent's stack is a card of its own, `AGENT@VERSION`, which the engine serves like
any other: in slots, in batches of mixed rows, within the memory for cards. A generation goes on
with the version it began with while newer ones come; an old one leaves behind its requests. Knows
nothing about learning or the hierarchy; stacks are handed to it.

Live mode is an experiment: an agent's card is then one whose weights are written over between the
tokens of whatever answers with it. The keys and values of a prompt that was read with older weights
stay, and the same question need not get the same answer again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Awaitable, Sequence
from typing import Protocol

import structlog

from services.inference import captures, mixing, residency
from shared import errors
from shared.cards import card as cards
from shared.cards import manifest as manifests
from shared.hierarchy import levels, stack, weights

_LIVE = "live"
_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What serves cards; `ArrowEngine` is one."""

    def serve_lora(self, key: str, source: residency.Source, private: bool = False) -> None:
        """Serves a card that comes into memory with its first request."""
        ...

    async def bring_lora(self, key: str, deadline_s: float | None = None) -> None:
        """Returns when a served card is in memory."""
        ...

    async def rewrite_lora(self, card: cards.LoRACard, key: str) -> None:
        """Changes a card's weights under whatever answers with it."""
        ...

    def remove_lora(self, key: str) -> Awaitable[None]:
        """Serves a card no longer; it leaves behind its requests."""
        ...

    def mix_lora(self, shares: Sequence[mixing.Share]) -> str:
        """Makes a mixture of served cards known; returns its key."""
        ...


@dataclasses.dataclass(frozen=True)
class BackendSettings:
    """How agents' memories are served."""

    dtype: str = "float32"
    """Of the cards: best that of the model's weights."""
    live: bool = False
    """Experiment: weights may change between the tokens of one generation."""
    trajectory_share: float = 1.0
    """Of the generations with an agent, those that are remembered, 0 to 1."""
    top_k: int = captures.TOP_K
    """Logits of each position that a trajectory keeps."""
    inputs: tuple[str, ...] = ()
    """Paths of the layers whose inputs a trajectory is known by."""


@dataclasses.dataclass(frozen=True)
class Memory:
    """With what an agent's question is answered."""

    name: str
    """`AGENT@VERSION`."""
    key: str
    """Of the engine: the memory alone, or composed with skills."""
    stack: stack.Stack
    """What it is made of."""
    capture: captures.Capture | None
    """Fills where the generation is to be remembered; of rank channels it tells the activity of
    those of the agent layer, and behind them of those of the context layer."""


@dataclasses.dataclass(eq=False)
class _Agent:
    stack: stack.Stack
    due: float = 0.0
    """Grows with each generation by the share; where it reaches 1 one is remembered."""


class LoRABackend:
    """The agents' memories on one engine; belongs to the event loop."""

    def __init__(
        self, engine: Engine, base: manifests.BaseModelReference, settings: BackendSettings
    ) -> None:
        """Begins without agents.

        Args:
            engine: answers.
            base: the model whose modules the stacks adapt.
            settings: how they are served.
        """
        self._engine, self._base, self._settings = engine, base, settings
        self._agents: dict[str, _Agent] = {}
        self._publishing = asyncio.Lock()
        self._leaving: set[asyncio.Task[None]] = set()

    def agents(self) -> list[str]:
        """Those that may be named."""
        return list(self._agents)

    def version(self, agent: str) -> int:
        """The version that the agent's next question is answered with.

        Raises:
            errors.NotFoundError: no such agent is here.
        """
        return self._find(agent).stack.version

    async def publish(self, agent: str, made: stack.Stack, warm: bool = True) -> None:
        """Has an agent's questions answered with a stack from when this returns on.

        Until then, and where it fails, those that come are answered with the one before. An older
        version than the present one is left out.

        Args:
            agent: a name that is fit for a card's, or becomes one.
            made: the layers.
            warm: whether to bring it into memory now; else the first question does.

        Raises:
            errors.SkillmeshError: it could not come into memory, or does not fit the model.
        """
        async with self._publishing:
            before = self._agents.get(agent)
            if before is not None and made.version <= before.stack.version:
                return
            key = _key(agent, made.version)
            self._engine.serve_lora(key, functools.partial(self._card, agent, made), private=True)
            try:
                if warm:
                    await self._engine.bring_lora(key)
                if self._settings.live:
                    await self._write_live(agent, made)
            except BaseException:
                self._retire(key)
                raise
            if before is None:
                self._agents[agent] = _Agent(made)
            else:
                before.stack, replaced = made, before.stack
                self._retire(_key(agent, replaced.version))

    def forget(self, agent: str) -> None:
        """Lets no further question name an agent; silent if it is not here."""
        if (gone := self._agents.pop(agent, None)) is not None:
            self._retire(_key(agent, gone.stack.version))
            if self._settings.live:
                self._retire(f"{agent}@{_LIVE}")

    def compose(self, agent: str, skills: Sequence[mixing.Share] = ()) -> Memory:
        """With what to answer an agent's next question.

        Both are added with weight 1: the memory, and the skills as they share the question. Skills
        stand beside a frozen version in live mode, too.

        Args:
            agent: whose memory.
            skills: the served cards that answer with it; may be empty.

        Raises:
            errors.NotFoundError: no such agent is here, or a card is not served.
            errors.PreconditionError: a card was given as an object and can't be had again.
        """
        found = self._find(agent)
        name = _key(agent, found.stack.version)
        if skills:
            key = self._engine.mix_lora([mixing.Share(name, 1.0), *skills])
        else:
            key = f"{agent}@{_LIVE}" if self._settings.live else name
        return Memory(name, key, found.stack, self._capture(found))

    def _find(self, agent: str) -> _Agent:
        found = self._agents.get(agent)
        if found is None:
            raise errors.NotFoundError(
                f"agent {agent!r} is not known to this node; GiveFeedback makes it known, "
                "ListAgents tells those that are"
            )
        return found

    def _capture(self, agent: _Agent) -> captures.Capture | None:
        agent.due += self._settings.trajectory_share
        if agent.due < 1.0:
            return None
        agent.due -= 1.0
        private = [agent.stack.layers[one] for one in levels.PRIVATE if one in agent.stack.layers]
        if not private:
            return None  # Nobody's own, so nobody remembers it.
        channels = weights.summed(private, [1.0] * len(private))
        return captures.Capture(
            self._settings.inputs,
            {path: factors.a for path, factors in channels.items()},
            self._settings.top_k,
        )

    def _card(self, agent: str, made: stack.Stack) -> cards.LoRACard:
        return made.to_card(manifests.slug(agent), self._base, self._settings.dtype)

    async def _write_live(self, agent: str, made: stack.Stack) -> None:
        key, found = f"{agent}@{_LIVE}", self._agents.get(agent)
        if found is None:
            self._engine.serve_lora(key, lambda: self._newest(agent, made), private=True)
            return
        card = await asyncio.to_thread(self._card, agent, made)
        await self._engine.rewrite_lora(card, key)

    def _newest(self, agent: str, first: stack.Stack) -> cards.LoRACard:
        found = self._agents.get(agent)
        return self._card(agent, first if found is None else found.stack)

    def _retire(self, key: str) -> None:
        task = asyncio.ensure_future(_left(key, self._engine.remove_lora(key)))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _left(key: str, leaving: Awaitable[None]) -> None:
    try:
        await leaving
    except errors.UnavailableError:
        _log.debug("memory stays until the node ends", memory=key)
    except Exception:
        _log.exception("memory could not leave", memory=key)


def _key(agent: str, version: int) -> str:
    return f"{agent}@{version}"
