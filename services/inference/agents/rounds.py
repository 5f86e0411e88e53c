"""A round of learning on the node's model, in steps between the tokens of its answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import pathlib
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from services.inference import generations, stepping
from services.inference.agents import feedback, learner
from shared import atomic, errors
from shared.hierarchy import learning, levels, stack
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models.embedded.recipe import conversations

LONGEST_TOKENS = 1_024
"""Of question and answer together: a step keeps the activations of all its rows."""
_TRIED_ROWS = 16
"""Answers that are tried in one step."""
_TOKENIZED, _MOST_LESSONS = 64, 4096
"""Pairs that are tokenized in one step, and that are kept so."""
_HELD, _HELD_TOKENS = 48, 48
"""Questions on which the base's own answers stay, and the longest of these."""
T = TypeVar("T")


class Engine(Protocol):
    """What has the model; `ArrowEngine` is one."""

    async def run_steps(self, make: stepping.Make[T]) -> T:
        """Runs long work on the model between tokens."""
        ...

    async def generate(
        self, query: str, card: str | None = None, max_new_tokens: int = 0
    ) -> generations.Generation:
        """Answers one question."""
        ...


class Rounds:
    """Runs rounds on one model; a `learner.Learning`."""

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
        self._held: list[feedback.Pair] | None = None
        self._lesson = functools.lru_cache(_MOST_LESSONS)(self._tokenized)
        context = getattr(base.model.config.get_text_config(), "max_position_embeddings", None)
        self._longest = min(LONGEST_TOKENS, context or LONGEST_TOKENS)
        pad = base.tokenizer.pad_token_id
        self._pad_id = int(base.tokenizer.eos_token_id if pad is None else pad)

    async def check(self, pairs: Sequence[feedback.Pair]) -> list[tuple[int, ...]]:
        """Checks that pairs fit into a step; returns the token ids of the questions as asked.

        Raises:
            errors.InvalidInputError: names the first that is too long.
        """
        lessons = await self._engine.run_steps(lambda *_: self._made(pairs))
        for at, lesson in enumerate(lessons):
            if (tokens := len(lesson.prompt) + len(lesson.answer)) > self._longest:
                raise errors.InvalidInputError(
                    f"pairs[{at}]: question and answer have {tokens:,} tokens together; at most "
                    f"{self._longest:,} are learned: shorten one, or teach a document instead"
                )

        return [one.prompt for one in lessons]

    async def tried(
        self, layers: stack.Stack, pairs: Sequence[feedback.Pair]
    ) -> list[learner.Tried]:
        """Whether pairs are answered right, by the agent and by the shared layers alone.

        Args:
            layers: what the agent answers with.
            pairs: questions with their answers.
        """
        shared = {level: one for level, one in layers.layers.items() if level.is_shared}
        stacks = (layers, stack.Stack(layers.version, shared))

        def work(
            model: Any, manager: managers.LoRAManager
        ) -> Generator[None, None, list[learner.Tried]]:
            found: list[learner.Tried] = []
            lessons = yield from self._made(pairs)
            for start in range(0, len(lessons), _TRIED_ROWS):
                some, right = lessons[start : start + _TRIED_ROWS], []
                for one in stacks:
                    yield
                    with learning.answering_with(manager, one):
                        right.append(learning.are_right(model, some, self._pad_id))
                found += [learner.Tried(*both) for both in zip(*right, strict=True)]
            return found

        return await self._engine.run_steps(work)

    async def learn(
        self,
        layers: stack.Stack,
        pairs: Sequence[feedback.Pair],
        kept: Sequence[feedback.Pair],
        seed: int,
        moments: learning.Moments | None = None,
    ) -> learner.Learned:
        """One round; the layers stay as they are.

        Args:
            layers: what the agent answers with now.
            pairs: of feedback.
            kept: what it learned before, to be rehearsed.
            seed: the same layers, pairs, seed and moments give the same changes.
            moments: of the agent's round before; written over.
        """
        if self._held is None:
            self._held = await self._own_answers()
        # Whoever is told something else about a general question is right.
        told = {one.question for one in (*pairs, *kept)}
        others = [one for one in self._held if one.question not in told]

        def work(
            model: Any, manager: managers.LoRAManager
        ) -> Generator[None, None, learner.Learned]:
            lessons = yield from self._made(pairs)
            rehearsed = yield from self._made(kept)
            held = yield from self._made(others)
            pad = self._pad_id
            own = learning.Round(model, manager, layers, self._specs, self._recipe, pad, moments)
            steps = cast("Generator[float]", own.steps(lessons, rehearsed, seed, held))
            with contextlib.closing(steps):
                for _ in steps:
                    yield
            found = own.learned()
            return learner.Learned(found.gradients, found.loss, own.moments())

        return await self._engine.run_steps(work)

    async def _own_answers(self) -> list[feedback.Pair]:
        """What the bare base says, asked once for each base model."""
        kept = await asyncio.to_thread(_kept, self._path)
        if any(question not in kept for question in self._questions):
            for question in self._questions:
                found = await self._engine.generate(question, None, _HELD_TOKENS)
                kept[question] = found.answer
            await asyncio.to_thread(atomic.write, self._path, json.dumps(kept).encode())
        return [feedback.Pair(one, kept[one]) for one in self._questions if kept[one].strip()]

    def _made(self, pairs: Sequence[feedback.Pair]) -> Generator[None, None, list[learning.Lesson]]:
        """Pairs as the model reads them; in its thread, whose the tokenizer is."""
        found = []
        for at, pair in enumerate(pairs):
            if at and at % _TOKENIZED == 0:
                yield
            found.append(self._lesson(pair))
        return found

    def _tokenized(self, pair: feedback.Pair) -> learning.Lesson:
        prompt = tuple(self._base.prompt_ids(pair.question))
        return learning.Lesson(prompt, tuple(self._base.answer_ids(pair.answer)))


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
