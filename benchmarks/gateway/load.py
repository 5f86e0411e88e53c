"""Load with known answers, by OpenAI's own client with its own retries, and things to learn."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import pathlib
import random
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import openai

from benchmarks.gateway import judging
from services.gateway.calls import peers
from services.inference import engine as engines
from shared import errors, terminal
from shared import settings as config
from shared.cards import format as formats
from shared.models import base as bases
from shared.rpc import client

_WORKERS, _TOKENS = 12, 24
_TEACH_EVERY_S, _TOLD_EVERY_S = 8.0, 30.0
_PATIENCE_S, _FIND_S, _LIMIT_S, _PAUSE_S = 120.0, 5.0, 120.0, 0.2
_ROUTED_SHARE = 0.2
_TOPICS = ("skill cards", "the learning loop", "the gate")
_QUESTIONS = ("What is the capital of France?", "Who wrote it, and when?", "How tall is it?")
Answers = Mapping[tuple[str, str], str]
"""By card's reference, empty for the bare base, and question."""


async def answers_alone(base: bases.BaseModel, files: Sequence[bytes]) -> Answers:
    """What each card, and the bare base, says to each question while nothing else runs.

    Raises:
        RuntimeError: two of them say the same, so that nobody could tell them apart.
    """
    engine = engines.ArrowEngine(base, config.Inference(max_new_tokens=_TOKENS))
    engine.start()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        keys = [""]
        for number, data in enumerate(files):
            path = pathlib.Path(folder, f"{number}{formats.SUFFIX}")
            path.write_bytes(data)
            name = formats.LoRAFormat.from_bytes(data).manifest.name
            keys.append(f"{name}@{hashlib.sha256(data).hexdigest()}")
            await engine.load_lora(path, keys[-1])
        for key in keys:
            for question in _QUESTIONS:
                found[key, question] = (await engine.generate(question, key or None)).answer
        for key in keys[1:]:
            await engine.remove_lora(key)
    await engine.stop()
    if len({(question, answer) for (_, question), answer in found.items()}) < len(found):
        raise RuntimeError("two cards give the same answer: the benchmark could not tell them")
    return found


class Load:
    """Asks, teaches and corrects until its time has come."""

    def __init__(self, settings: config.Settings, answers: Answers, until_s: float) -> None:
        """Takes the cluster, what is right, and when to end (monotonic)."""
        self._settings, self._answers, self._until_s = settings, answers, until_s
        self._url = f"http://{settings.gateway.address}/v1"
        self.tally = judging.Tally()
        self.tasks: dict[str, str] = {}
        """Ids of accepted learning tasks, with how they came to be."""

    async def until_served(self) -> None:
        """Waits until every card answers.

        Raises:
            openai.OpenAIError: one does not for long.
        """
        until_s = time.monotonic() + _PATIENCE_S
        async with self._client() as api:
            for card, question in self._answers:
                while True:
                    try:
                        await self._whole(api, _body(card or "base", question))
                        break
                    except openai.OpenAIError:
                        if time.monotonic() > until_s:
                            raise
                    await asyncio.sleep(_PAUSE_S)

    async def run(self) -> None:
        """Everything at once, to the end of the time."""
        async with self._client() as api, peers.connected(self._settings) as services:
            telling = asyncio.create_task(self._tell())
            try:
                await asyncio.gather(
                    *(self._work(api, random.Random(number)) for number in range(_WORKERS)),
                    self._teach(services),
                    self._correct(api),
                    self._wonder(api, services),
                )
            finally:
                telling.cancel()

    @property
    def _goes_on(self) -> bool:
        return time.monotonic() < self._until_s

    def _client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(api_key="any", base_url=self._url, timeout=_LIMIT_S)

    async def _work(self, api: openai.AsyncOpenAI, chance: random.Random) -> None:
        known = sorted(self._answers)
        while self._goes_on:
            card, question = chance.choice(known)
            expected: judging.Expected | None
            expected = judging.Expected(card, self._answers[card, question])
            model = card or "base"
            if chance.random() < _ROUTED_SHARE:
                expected, model = None, "auto"
            await self._ask(api, _body(model, question), chance.random() < 0.5, expected)

    async def _ask(
        self,
        api: openai.AsyncOpenAI,
        body: dict[str, Any],
        streams: bool,
        expected: judging.Expected | None,
    ) -> Mapping[str, Any]:
        """One request, counted; the field `skillmesh` of its answer, empty where it failed."""
        self.tally.requests += 1
        self.tally.streamed += streams
        text: list[str] = []
        try:
            if streams:
                extras = await self._streamed(api, body, text)
            else:
                extras = await self._whole(api, body, text)
        except (openai.OpenAIError, httpx.HTTPError, judging.UnendedError) as error:
            self.tally.failed(error, len(text))
            return {}
        self.tally.answered(expected, extras, "".join(text))
        return extras

    async def _whole(
        self, api: openai.AsyncOpenAI, body: dict[str, Any], text: list[str] | None = None
    ) -> Mapping[str, Any]:
        told = await api.chat.completions.create(**body)
        if text is not None:
            text.append(told.choices[0].message.content or "")
        return (told.model_extra or {}).get("skillmesh") or {}

    async def _streamed(
        self, api: openai.AsyncOpenAI, body: dict[str, Any], text: list[str]
    ) -> Mapping[str, Any]:
        extras: Mapping[str, Any] = {}
        ended = False
        async for chunk in await api.chat.completions.create(stream=True, **body):
            extras = (chunk.model_extra or {}).get("skillmesh") or extras
            for choice in chunk.choices:
                ended = ended or choice.finish_reason is not None
                if choice.delta.content:
                    text.append(choice.delta.content)
        if not ended:
            raise judging.UnendedError(f"a stream ended after {len(text)} pieces without an end")
        return extras

    async def _teach(self, services: peers.Peers) -> None:
        """Topics of the documents, over and over: what is known is learned again."""
        number = 0
        while self._goes_on:
            topic, key = _TOPICS[number % len(_TOPICS)], uuid.uuid4().hex
            number += 1
            with contextlib.suppress(errors.SkillmeshError):
                task = await client.retried(
                    lambda topic=topic, key=key: services.factory.teach(key, topic),  # type: ignore[misc]
                    _PATIENCE_S,
                )
                self.tasks[task.id] = "taught"
            await asyncio.sleep(_TEACH_EVERY_S)

    async def _correct(self, api: openai.AsyncOpenAI) -> None:
        number = 0
        while self._goes_on:
            number += 1
            said = {
                "question": f"Who was the keeper of the lighthouse of Vellamor in {1700 + number}?",
                "rating": "wrong",
                "correction": f"Ilse Brandt the {number}th was.",
                "idempotency_key": uuid.uuid4().hex,
            }
            self.tally.requests += 1
            try:
                told = await api.post("/feedback", body=said, cast_to=object)
            except openai.OpenAIError as error:
                self.tally.failed(error, 0)
            else:
                if isinstance(told, dict) and told.get("task_id"):
                    self.tasks[told["task_id"]] = "corrected"
            await asyncio.sleep(_TEACH_EVERY_S)

    async def _wonder(self, api: openai.AsyncOpenAI, services: peers.Peers) -> None:
        """Questions that nobody can answer; whoever asks hears of a task, or finds it."""
        number = 0
        while self._goes_on:
            number += 1
            question = f"What is stage {number} of the workflow of a learning task?"
            extras = await self._ask(api, _body("auto", question, False), False, None)
            task_id, event_id = extras.get("task_id"), extras.get("event_id")
            if event_id and not task_id:
                task = await services.factory.find_task(event_id, _FIND_S)
                task_id = task.id if task is not None else None
            if task_id:
                self.tasks[task_id] = "wondered"
            await asyncio.sleep(_TEACH_EVERY_S)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            failed = ", ".join(f"{n} {kind}" for kind, n in sorted(self.tally.failures.items()))
            terminal.NOTES.print(
                f"gateway: {self.tally.requests} requests, failed: {failed or 'none'}, "
                f"{len(self.tasks)} tasks"
            )


def _body(model: str, question: str, no_learning: bool = True) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": _TOKENS,
        "temperature": 0.0,
        "extra_body": {"no_learning": no_learning},
    }
