"""A round of learning on the node's model, in steps between the tokens of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pathlib
import random
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, cast

import structlog

from services.inference import generations, stepping
from services.inference.agents import agents, ledger
from shared import atomic
from shared.hierarchy import learning, levels, stack
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models.embedded.recipe import conversations

LOOKED_AT = 32
"""Remembered answers that an agent with nothing new tries; what it gets wrong it learns again."""
LONGEST_TOKENS = 1_024
"""Of question and answer together: a step keeps the activations of all its rows."""
_HELD, _HELD_TOKENS = 48, 48
"""Questions on which the base's own answers stay, and the longest of these."""
_log = structlog.get_logger(__name__)


class Engine(Protocol):
    """What has the model; `ArrowEngine` is one."""

    async def run_steps(
        self, make: stepping.Make[learning.Learned | None]
    ) -> learning.Learned | None:
        """Runs long work on the model between tokens."""
        ...

    async def generate(
        self, query: str, card: str | None = None, max_new_tokens: int = 0
    ) -> generations.Generation:
        """Answers one question."""
        ...


class Rounds:
    """Runs rounds on one model; `learn` is an `agents.Learn`."""

    def __init__(
        self,
        engine: Engine,
        base: bases.BaseModel,
        specs: Mapping[levels.Level, levels.Spec],
        recipe: learning.Recipe,
        folder: pathlib.Path,
        held: Sequence[str] | None = None,
    ) -> None:
        """Prepares.

        Args:
            engine: has the model.
            base: the model and its tokenizer.
            specs: of all layers.
            recipe: how a round learns.
            folder: where the base's own answers are kept.
            held: questions on which the base's own answers are to stay, whatever is learned; by
                default general ones.
        """
        self._engine, self._base = engine, base
        self._specs, self._recipe = specs, recipe
        self._path = folder / f"held-{base.fingerprint[:16]}.json"
        self._questions = _general() if held is None else list(held)
        self._held: list[learning.Lesson] | None = None
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
            None where there are no pairs, and of the rest nothing that it tries was forgotten.
        """
        lessons, rehearsed = self._lessons(pairs), self._lessons(kept)
        if self._held is None:
            self._held = self._lessons(await self._own_answers())
        held = self._held

        def work(
            model: Any, manager: managers.LoRAManager
        ) -> Generator[None, None, learning.Learned | None]:
            taught = lessons or self._forgotten(model, manager, layers, rehearsed, seed)
            if not taught:
                return None
            yield
            own = learning.Round(model, manager, layers, self._specs, self._recipe, self._pad_id)
            steps = cast("Generator[float]", own.steps(taught, rehearsed, seed, held))
            with contextlib.closing(steps):
                for _ in steps:
                    yield
            return own.learned()

        found = await self._engine.run_steps(work)
        return None if found is None else agents.Learned(found.gradients, found.loss)

    def _forgotten(
        self,
        model: Any,
        manager: managers.LoRAManager,
        layers: stack.Stack,
        kept: Sequence[learning.Lesson],
        seed: int,
    ) -> list[learning.Lesson]:
        """Of some answers that it knew, those that it would get wrong now."""
        tried = random.Random(seed).sample(kept, min(len(kept), LOOKED_AT))
        if not tried:
            return []
        with learning.answering_with(manager, layers):
            right = learning.are_right(model, tried, self._pad_id)
        return [one for one, is_right in zip(tried, right, strict=True) if not is_right]

    async def _own_answers(self) -> list[ledger.Pair]:
        """What the bare base says, asked once for each base model."""
        kept = await asyncio.to_thread(_kept, self._path)
        if any(question not in kept for question in self._questions):
            for question in self._questions:
                found = await self._engine.generate(question, None, _HELD_TOKENS)
                kept[question] = found.answer
            await asyncio.to_thread(atomic.write, self._path, json.dumps(kept).encode())
        return [ledger.Pair(one, kept[one]) for one in self._questions if kept[one].strip()]

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


def _general() -> list[str]:
    """Questions of general knowledge, evenly from all that there are."""
    found = [fact.trained[0] for fact in conversations.known_facts()]
    return found[:: max(1, len(found) // _HELD)][:_HELD]


def _kept(path: pathlib.Path) -> dict[str, str]:
    """The answers of before, where the file has them."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(q): str(a) for q, a in found.items()} if isinstance(found, dict) else {}
