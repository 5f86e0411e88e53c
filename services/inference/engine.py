"""`ArrowEngine`: the base model with the cards that this node serves.

Stands between requests (asyncio) and the model, which one thread alone touches. Knows nothing of
gRPC, of the router or of where cards come from. A card comes in between two tokens of whatever
runs, which goes on with the card it began with; a card leaves behind all requests that chose it.
What is served and what of it is in memory is `residency`'s to say.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import pathlib
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

import torch

from services.inference import attachment as attachments
from services.inference import (
    captures,
    card_files,
    constraints,
    deadlines,
    encoding,
    endings,
    evolution,
    federation,
    generations,
    inboxes,
    load,
    memories,
    mixing,
    prompts,
    residency,
    stepping,
    traffic,
)
from services.inference import model_slots as slots
from services.inference import sampling as samplings
from services.inference import worker as workers
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.lora import manager as managers
from shared.models import base as bases
from shared.rpc import watch

T = TypeVar("T")
_MIB = 2**20


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
        self._generations = generations.Generations(base, self._manager, settings)
        self._worker = workers.Worker(
            settings.queue, lambda: torch.set_num_threads(settings.threads), self._generations
        )
        self._encoder = encoding.Encoder(
            base, self._manager, self._worker, self._generations.prompts
        )
        self._stepper = stepping.Stepper(base.model, self._manager, self._worker, self._generations)
        memory = slots.ModelSlots(self._manager, self._worker)
        self._cards = residency.Residency(memory, int(settings.card_memory_mib * _MIB))
        self._traffic = traffic.Traffic(self._cards, settings.queue)
        self._schemas = constraints.Schemas(base)
        self._attachment = attachments.Attachment(self)
        self._post: inboxes.Post | None = None

    def start(self) -> None:
        """Starts the model's thread."""
        self._worker.start()

    async def stop(self) -> None:
        """Refuses what waits and ends the thread once the running requests have ended."""
        await self._attachment.close()
        await self._worker.stop()
        await self._traffic.close()

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
        """Requests that wait for their turn or for their card."""
        return self._worker.waiting + self._traffic.waiting

    @property
    def load(self) -> load.Load:
        """How busy it is now."""
        return load.Load(
            running=self._generations.under_way,
            waiting=self.waiting,
            most_rows=self._settings.batch_rows,
            queue=self._settings.queue,
            max_new_tokens=self._settings.max_new_tokens,
            context_tokens=self._generations.prompts.context_tokens,
        )

    @property
    def has_room(self) -> bool:
        """Whether another request would be answered at once; it may have changed already."""
        return not self.waiting and self._generations.has_room

    def served(self) -> list[str]:
        """Keys of the cards that requests may choose, in the order of their coming."""
        return self._cards.served()

    def resident(self) -> list[str]:
        """Keys of the cards that are in memory, used longest ago first."""
        return self._cards.resident()

    def pinned(self) -> list[str]:
        """Those of them that stay there."""
        return self._cards.pinned()

    @property
    def held_bytes(self) -> int:
        """Memory that the resident cards hold."""
        return self._cards.held_bytes

    async def generate(
        self,
        query: prompts.Asked,
        card: str | None = None,
        max_new_tokens: int = 0,
        deadline_s: float | None = None,
        sampling: samplings.Sampling = samplings.GREEDY,
    ) -> generations.Generation:
        """Answers one question; see `stream`."""
        pieces = self.stream(query, card, max_new_tokens, deadline_s, sampling)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                if piece.final is not None:
                    return piece.final
        raise errors.InternalError("a generation ended without its last piece")

    async def stream(
        self,
        query: prompts.Asked,
        card: str | None = None,
        max_new_tokens: int = 0,
        deadline_s: float | None = None,
        sampling: samplings.Sampling = samplings.GREEDY,
        capture: captures.Capture | None = None,
    ) -> AsyncGenerator[generations.Piece, None]:
        """Answers one question piece by piece; closing it stops the model at its next token.

        Args:
            query: what the user asks, alone or behind a conversation, or the place in a text at
                which to go on; of the text around it as much is read as there is room for.
            card: key of a served card or of a mixture, which comes into memory if it is not
                there; None for the bare base model.
            max_new_tokens: longest answer; 0 for the default of config.yaml.
            deadline_s: how long the whole answer may take, waiting included.
            sampling: how tokens are chosen, where the answer ends and what form it has.
            capture: keeps what is to be remembered of it; to be read behind the last piece.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.CapacityError: the card is larger than the memory for cards.
            errors.OverloadedError: the queue is full.
            errors.InvalidInputError: the prompt is longer than the model's context, a parameter is
                out of range, or the JSON schema is wrong or not supported.
            errors.PreconditionError: the tokenizer can't be used for JSON schemas.
            errors.DeadlineError: not ready in time.
        """
        if max_new_tokens < 0:
            raise errors.InvalidInputError(
                f"max_new_tokens is {max_new_tokens}; give a positive number, or 0 for the default"
            )
        sampling.check()
        loop = asyncio.get_running_loop()
        deadline = deadlines.Deadline(deadline_s)
        if self._post is None or self._post.loop is not loop:
            self._post = inboxes.Post(loop, self._settings.stream_interval_ms / 1000)
        post, inbox = self._post, inboxes.Inbox(self._post)
        ended: concurrent.futures.Future[generations.Generation | None]
        ended, stopped = concurrent.futures.Future(), threading.Event()
        # Held until the model has let go of the request, and not only whoever asked.
        release = (lambda: None) if card is None else self._cards.hold(card)
        ended.add_done_callback(lambda _: post.soon(release))
        ended.add_done_callback(lambda _: inbox.put(None))
        with endings.ended_if_failed(ended):
            constraint = None
            if sampling.json_schema:
                async with deadline.limit():
                    constraint = await self._schemas.constraint(sampling.json_schema)
            if card is not None:
                await self.bring_lora(card, deadline.left_s)
            request = generations.Request(
                query=query,
                card=card,
                max_new_tokens=max_new_tokens or self._settings.max_new_tokens,
                sampling=sampling,
                tell=inbox.put,
                ended=ended,
                stopped=stopped,
                capture=capture,
                measured=card is None or self._cards.is_private(card),
                constraint=constraint,
            )
            job = self._worker.submit(
                functools.partial(self._generations.join, request), adds_steps=True
            )
        job.add_done_callback(functools.partial(endings.ended_unheard, ended))
        try:
            goes_on = True
            while goes_on:
                async with deadline.limit():
                    piece, goes_on = await inbox.get()
                if piece is not None:
                    yield piece
            final = ended.result()
            if final is not None:
                yield generations.Piece("", final)
        finally:
            stopped.set()
            job.cancel()

    async def encode(self, texts: Sequence[str]) -> encoding.Vectors:
        """Means of the base model's last hidden states, float32 of shape (texts, hidden)."""
        return await self._encoder.encode(texts, None)

    async def encode_with_lora(self, texts: Sequence[str], card: str) -> encoding.Vectors:
        """The same with a served card active.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.SkillmeshError: it could not come into memory.
        """
        release = self._cards.hold(card)
        try:
            await self.bring_lora(card)
            return await self._encoder.encode(texts, card)
        finally:
            release()

    async def load_lora(
        self,
        card: cards.LoRACard | pathlib.Path,
        key: str,
        source: residency.Source | None = None,
        evict: bool = True,
    ) -> None:
        """Brings a card into memory, ahead of waiting requests, and serves it from then on.

        Cards that were not used for long and are not pinned make room; they stay served, and come
        back when they are asked for. Nothing happens if the card is served already.

        Args:
            card: the card, or its file, which must have the digest that the key names.
            key: `name@digest`.
            source: gets the card again when it has left memory. By default its file; a card that
                is given as an object without a source can't come back, so that it is pinned.
            evict: whether other cards may leave memory for it. If not, and there is no room, it is
                served all the same and comes in with the first request.

        Raises:
            errors.CapacityError: it is larger than the memory for cards.
            errors.SkillmeshError: file, base model or shapes are wrong. Either way it is not
                served, and nothing else has changed.
        """
        given = card if isinstance(card, cards.LoRACard) else None
        if isinstance(card, pathlib.Path):
            source = source or card_files.source(card, key)
        self._cards.add(key, source)
        try:
            await self._cards.load(key, given, evict)
            self._cards.serve(key)
        except BaseException as error:
            if key not in self._cards.served():
                removal = self._traffic.remove_soon(key)
                # Whoever gives up does not wait until the card has come and gone.
                if not isinstance(error, asyncio.CancelledError):
                    await removal
            raise

    async def bring_lora(self, key: str, deadline_s: float | None = None) -> None:
        """Returns when a served card is in memory; at once if it is there.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.OverloadedError: too many requests wait for their cards.
            errors.DeadlineError: it was not there in time.
            errors.SkillmeshError: it can't be had, or does not fit.
        """
        await self._traffic.bring(key, deadline_s)

    async def keep_lora(self, key: str, deadline_s: float | None = None) -> None:
        """Brings a served card into memory, to stay there; raises as `bring_lora` does."""
        await self._traffic.keep(key, deadline_s)

    async def let_go_lora(self, key: str) -> None:
        """Lets a pinned card leave memory, at once where nobody uses it; it stays served.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.PreconditionError: it was given as an object and stays pinned.
        """
        await self._traffic.let_go(key)

    def pin_lora(self, key: str, pinned: bool = True) -> None:
        """Keeps a served card in memory, or lets it go again.

        Raises:
            errors.NotFoundError: the card is not served.
            errors.PreconditionError: it was given as an object and stays pinned.
        """
        self._cards.pin(key, pinned)

    def remove_lora(self, key: str) -> asyncio.Future[None]:
        """Serves a card no longer, from this very call on; silent if it is not there.

        Returns:
            To be awaited until no request uses it and others may have its memory. That comes, too,
            when nobody waits.
        """
        self._cards.unserve(key)
        return self._traffic.remove_soon(key)

    def serve_lora(self, key: str, source: residency.Source, private: bool = False) -> None:
        """Serves a card that comes into memory with its first request; see `load_lora`.

        One that is private is not listed among those that are served.
        """
        self._cards.add(key, source)
        self._cards.serve(key, private)

    async def rewrite_lora(self, card: cards.LoRACard, key: str) -> None:
        """Changes a card's weights in memory, if it is there, under whatever answers with it."""
        release = self._cards.hold(key)
        try:
            if self._cards.is_resident(key):
                work = functools.partial(self._manager.rewrite_card, card, key)
                await asyncio.wrap_future(self._worker.submit_urgent(work))
        finally:
            release()

    async def run_steps(self, make: stepping.Make[T]) -> T:
        """Runs long work on the bare model between tokens; see `stepping.Stepper.run`."""
        return await self._stepper.run(make)

    def mix_lora(self, shares: Sequence[mixing.Share]) -> str:
        """Makes a mixture of served cards known, for `stream`; returns its key.

        Raises:
            errors.NotFoundError: a card is not served.
            errors.PreconditionError: one was given as an object and can't be had again.
        """
        key = mixing.key(shares)
        merge = functools.partial(mixing.merged, shares)
        self._cards.mix(key, [one.card for one in shares], merge)
        return key

    async def start_federation(
        self,
        settings: config.Settings,
        find_stores: watch.Find | None = None,
        silence_s: float = watch.SILENCE_S,
    ) -> federation.Federation:
        """Keeps its cards as a store has them until it stops; see `federation.joined`."""
        return await self._attachment.start_federation(settings, find_stores, silence_s)

    async def sync_remote_skills(self) -> list[str]:
        """Lists that store now; returns `name@digest` of the cards that came."""
        return await self._attachment.sync()

    async def enable_evolution(
        self,
        settings: config.Settings,
        find_stores: watch.Find | None = None,
        silence_s: float = watch.SILENCE_S,
        agents: memories.Memories | None = None,
    ) -> evolution.Evolution:
        """Attaches it to a whole skillmesh, router included; see `evolution.attached`."""
        return await self._attachment.enable_evolution(settings, find_stores, silence_s, agents)
