"""`ArrowEngine`: the base model with the cards that are resident on this node.

Stands between requests (asyncio) and the model, which one thread alone touches. Knows nothing of
gRPC, of the router or of where cards come from. A card comes in between two tokens of whatever
runs, which goes on with the card it began with; a card leaves behind all requests that chose it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import pathlib
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from services.inference import decoding
from services.inference import worker as workers
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.lora import manager as managers
from shared.models import base as bases

Vectors = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Generation:
    """A whole answer."""

    answer: str
    card: str | None
    """`name@digest` of the card that answered; None for the bare base model."""
    prompt_tokens: int
    new_tokens: int
    """Tokens of the answer, without the one that ends it."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """A part of an answer; the last one has the whole answer beside it."""

    text: str
    final: Generation | None = None


@dataclasses.dataclass(frozen=True)
class _Request:
    query: str
    card: str | None
    max_new_tokens: int
    tell: Callable[[Piece | None], None]
    """Takes every piece to the asking coroutine; None when there are no more."""
    stopped: threading.Event
    """Set when nobody waits for the answer any more."""


class ArrowEngine:
    """Generates and encodes, and swaps cards while it does."""

    def __init__(self, base: bases.BaseModel, settings: config.Inference) -> None:
        """Takes the model, which belongs to this engine from now on.

        Args:
            base: the loaded base model.
            settings: threads, default length of answers, length of the queue.
        """
        self._base = base
        self._settings = settings
        self._manager = managers.LoRAManager(base.model, base.fingerprint)
        self._end_ids = decoding.end_ids(base.model, base.tokenizer)
        self._context_tokens = decoding.context_tokens(base.model)
        self._worker = workers.Worker(
            settings.queue, lambda: torch.set_num_threads(settings.threads)
        )
        # What requests may choose. Only the event loop reads and writes these two.
        self._resident: list[str] = []
        self._leaving: dict[str, concurrent.futures.Future[None]] = {}

    def start(self) -> None:
        """Starts the model's thread."""
        self._worker.start()

    async def stop(self) -> None:
        """Refuses what waits and ends the thread once the running request has ended."""
        await self._worker.stop()

    @property
    def base_id(self) -> str:
        """What `model.base` in config.yaml says."""
        return self._base.id

    @property
    def fingerprint(self) -> str:
        """The base model's identity; see `shared.models.base`."""
        return self._base.fingerprint

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._worker.waiting

    def resident(self) -> list[str]:
        """Keys of the cards that requests may choose, in the order of their coming."""
        return list(self._resident)

    async def generate(
        self,
        query: str,
        card: str | None = None,
        max_new_tokens: int = 0,
        deadline_s: float | None = None,
    ) -> Generation:
        """Answers one question; see `stream`."""
        pieces = self.stream(query, card, max_new_tokens, deadline_s)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final
        raise errors.InternalError("a generation ended without its last piece")

    async def stream(
        self,
        query: str,
        card: str | None = None,
        max_new_tokens: int = 0,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """Answers one question piece by piece; closing it stops the model at its next token.

        Args:
            query: what the user asks.
            card: key of a resident card; None for the bare base model.
            max_new_tokens: longest answer; 0 for the default of config.yaml.
            deadline_s: how long the whole answer may take, waiting included.

        Raises:
            errors.NotFoundError: the card is not resident.
            errors.OverloadedError: the queue is full.
            errors.InvalidInputError: the prompt is longer than the model's context.
            errors.DeadlineError: not ready in time.
        """
        self._check_resident(card)
        if max_new_tokens < 0:
            raise errors.InvalidInputError(
                f"max_new_tokens is {max_new_tokens}; give a positive number, or 0 for the default"
            )
        loop = asyncio.get_running_loop()
        deadline = None if deadline_s is None else loop.time() + deadline_s
        inbox: asyncio.Queue[Piece | None] = asyncio.Queue()

        def tell(piece: Piece | None) -> None:
            _soon(loop, inbox.put_nowait, piece)

        limit = max_new_tokens or self._settings.max_new_tokens
        request = _Request(query, card, limit, tell, threading.Event())
        job = self._worker.submit(functools.partial(self._generate, request))
        job.add_done_callback(lambda _: tell(None))
        try:
            while (piece := await _next_piece(inbox, deadline, deadline_s)) is not None:
                yield piece
            yield Piece("", job.result())
        finally:
            request.stopped.set()
            job.cancel()

    async def encode(self, texts: Sequence[str]) -> Vectors:
        """Means of the base model's last hidden states, float32 of shape (texts, hidden)."""
        return await asyncio.wrap_future(
            self._worker.submit(functools.partial(self._encode, list(texts), None))
        )

    async def encode_with_lora(self, texts: Sequence[str], card: str) -> Vectors:
        """The same with a resident card active.

        Raises:
            errors.NotFoundError: the card is not resident.
        """
        self._check_resident(card)
        return await asyncio.wrap_future(
            self._worker.submit(functools.partial(self._encode, list(texts), card))
        )

    async def load_lora(self, card: cards.LoRACard | pathlib.Path, key: str) -> None:
        """Makes a card resident, ahead of waiting requests; nothing happens if it is already.

        Args:
            card: the card, or its file, which must have the digest that the key names.
            key: `name@digest`.

        Raises:
            errors.SkillmeshError: file, base model or shapes are wrong; nothing has changed.
        """
        if (leaving := self._leaving.get(key)) is not None:
            await asyncio.wait([asyncio.wrap_future(leaving)])
        if key in self._resident:
            return
        if isinstance(card, pathlib.Path):
            digest = key.partition("@")[2]
            expected = digest if manifests.is_digest(digest) else None
            card = await asyncio.to_thread(formats.LoRAFormat.load, card, expected)
        job = self._worker.submit_urgent(functools.partial(self._manager.apply_card, card, key))
        # Shielded: whoever gives up waiting can't take back what the thread may have begun, and a
        # card that is in the model must be in the list.
        await asyncio.shield(self._list_when_applied(job, key))

    async def remove_lora(self, key: str) -> None:
        """Takes a card out, behind the requests that chose it; silent if it is not there."""
        if key in self._resident:
            self._resident.remove(key)
            leaving = self._worker.submit_last(functools.partial(self._manager.remove_card, key))
            self._leaving[key] = leaving
            loop = asyncio.get_running_loop()
            leaving.add_done_callback(lambda _: _soon(loop, self._leaving.pop, key, None))
        if (going := self._leaving.get(key)) is not None:
            await asyncio.shield(asyncio.wrap_future(going))

    async def _list_when_applied(self, job: concurrent.futures.Future[None], key: str) -> None:
        await asyncio.wrap_future(job)
        if key not in self._resident:
            self._resident.append(key)

    def _check_resident(self, card: str | None) -> None:
        if card is not None and card not in self._resident:
            raise errors.NotFoundError(
                f"card {card} is not resident on this node; it has {self._resident[:8]}"
            )

    # From here on: only in the model's thread.

    def _generate(self, request: _Request) -> Generation:
        prompt_ids = self._base.prompt_ids(request.query)
        room = self._room(len(prompt_ids))
        self._manager.activate(request.card)
        pieces, answer = decoding.TextPieces(self._base.tokenizer), []
        limit = request.max_new_tokens if room is None else min(request.max_new_tokens, room)
        for token in decoding.greedy(self._base.model, prompt_ids, limit, self._end_ids):
            if text := pieces.add(token):
                answer.append(text)
                request.tell(Piece(text))
            if request.stopped.is_set():
                break
            # Cards come in between two tokens, so that a long answer does not hold them up. The
            # active card stays active: cards leave as jobs of their own.
            self._worker.run_urgent()
        if text := pieces.rest():
            answer.append(text)
            request.tell(Piece(text))
        return Generation("".join(answer), request.card, len(prompt_ids), pieces.tokens)

    @torch.inference_mode()
    def _encode(self, texts: list[str], card: str | None) -> Vectors:
        self._manager.activate(card)
        hidden = int(self._base.model.config.get_text_config().hidden_size)
        vectors_N_H = np.zeros((len(texts), hidden), dtype=np.float32)
        # One text at a time: padding would change the last bits, and nobody encodes many here.
        for row, text in enumerate(texts):
            ids: list[Any] = list(self._base.tokenizer(text)["input_ids"])
            if not ids:
                raise errors.InvalidInputError(f"texts[{row}] has no token; leave it out")
            self._room(len(ids) - 1)
            states_1_T_H = self._base.model.base_model(
                input_ids=torch.tensor([ids]), use_cache=False
            ).last_hidden_state
            vectors_N_H[row] = states_1_T_H[0].float().mean(0).cpu().numpy()
        return vectors_N_H

    def _room(self, prompt_tokens: int) -> int | None:
        """Tokens that are left for an answer, at least one; None where there is no limit."""
        if self._context_tokens is None:
            return None
        if prompt_tokens >= self._context_tokens:
            raise errors.InvalidInputError(
                f"the text has {prompt_tokens:,} tokens; the context of base model "
                f"{self._base.id} has {self._context_tokens:,}, the answer included: shorten it"
            )
        return self._context_tokens - prompt_tokens


async def _next_piece(
    inbox: asyncio.Queue[Piece | None], deadline: float | None, deadline_s: float | None
) -> Piece | None:
    try:
        async with asyncio.timeout_at(deadline):
            return await inbox.get()
    except TimeoutError as error:
        raise errors.DeadlineError(
            f"the answer was not ready within {deadline_s:.1f} s; allow more or ask for less"
        ) from error


def _soon(loop: asyncio.AbstractEventLoop, function: Callable[..., Any], *arguments: Any) -> None:
    # The loop may be closed already when the model notices that it should stop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)
