"""A round of learning on the node's model, in steps between the tokens of its answers."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, cast

import structlog

from services.inference import stepping
from services.inference.agents import agents, ledger
from shared.hierarchy import learning, levels, stack
from shared.lora import manager as managers
from shared.models import base as bases

FORGOTTEN = 0.1
"""Mean cross-entropy of remembered answers, nats a token, from which on they are rehearsed by an
agent that has nothing else to learn."""
LONGEST_TOKENS = 1_024
"""Of question and answer together: a step keeps the activations of all its rows."""
_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What has the model; `ArrowEngine` is one."""

    async def run_steps(
        self, make: stepping.Make[learning.Learned | None]
    ) -> learning.Learned | None:
        """Runs long work on the model between tokens."""
        ...


class Rounds:
    """Runs rounds on one model; `learn` is an `agents.Learn`."""

    def __init__(
        self,
        engine: Engine,
        base: bases.BaseModel,
        specs: Mapping[levels.Level, levels.Spec],
        recipe: learning.Recipe,
    ) -> None:
        """Takes the model's engine, its tokenizer, and how a round learns."""
        self._engine, self._base = engine, base
        self._specs, self._recipe = specs, recipe
        context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
        self._longest = min(LONGEST_TOKENS, context or LONGEST_TOKENS)
        pad = base.tokenizer.pad_token_id
        self._pad_id = int(base.tokenizer.eos_token_id if pad is None else pad)

    async def learn(
        self,
        layers: stack.Stack,
        pairs: Sequence[ledger.Pair],
        kept: Sequence[ledger.Pair],
        seed: int,
    ) -> agents.Learned | None:
        """One round; the layers stay as they are.

        Pairs that are too long for a step are left out.

        Args:
            layers: what the agent answers with now.
            pairs: of feedback.
            kept: what it learned before, to be rehearsed.
            seed: the same layers, pairs and seed give the same changes.

        Returns:
            None where there are no pairs, and a first look finds the rest well remembered.
        """
        lessons, rehearsed = self._lessons(pairs), self._lessons(kept)

        def work(
            model: Any, manager: managers.LoRAManager
        ) -> Generator[None, None, learning.Learned | None]:
            own = learning.Round(model, manager, layers, self._specs, self._recipe, self._pad_id)
            steps = cast("Generator[float]", own.steps(lessons, rehearsed, seed))
            with contextlib.closing(steps):
                for loss in steps:
                    if not lessons and loss < FORGOTTEN:
                        return None
                    yield
            return own.learned()

        found = await self._engine.run_steps(work)
        return None if found is None else agents.Learned(found.gradients, found.loss)

    def _lessons(self, pairs: Sequence[ledger.Pair]) -> list[learning.Lesson]:
        found = []
        for pair in pairs:
            prompt = tuple(self._base.prompt_ids(pair.question))
            answer = tuple(self._base.answer_ids(pair.answer))
            if len(prompt) + len(answer) > self._longest:
                _log.warning("feedback left out", tokens=len(prompt) + len(answer))
                continue
            found.append(learning.Lesson(prompt, answer))
        return found
