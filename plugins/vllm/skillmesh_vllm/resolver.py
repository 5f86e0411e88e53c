"""`CardResolver`: the card that a request's model name means, as a `LoRARequest` of vLLM.

Knows vLLM by its documented interface alone (`vllm.lora.resolver.LoRAResolver`): the class of the
request is passed in, so that this module imports without vLLM.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import logging
import pathlib
from collections.abc import Callable
from typing import Any

from skillmesh_vllm import cache, errors, following, peft_folder, store

_log = logging.getLogger("vllm.plugins.skillmesh")
_AT_ONCE = 4
_ID_DIGITS = 15
"""Hex digits of the digest in an adapter's number: vLLM keeps it in 64 bits with sign."""


class CardResolver:
    """Resolves `name`, `name@alias` and `name@digest`."""

    def __init__(
        self,
        cards: store.CardStore,
        folders: cache.FolderCache,
        base_fingerprint: str,
        make_request: Callable[..., Any],
        follower: following.NameFollower,
    ) -> None:
        """Takes its parts.

        Args:
            cards: where cards come from.
            folders: where they lie for vLLM.
            base_fingerprint: of the base model that this vLLM serves.
            make_request: `vllm.lora.request.LoRARequest`.
            follower: told of every name that was resolved.
        """
        self._cards, self._folders, self._follower = cards, folders, follower
        self._base_fingerprint = base_fingerprint
        self._make_request = make_request
        self._answers = itertools.count(1)
        # Of its own: vLLM's threads must not wait for downloads.
        self._threads = concurrent.futures.ThreadPoolExecutor(_AT_ONCE, "skillmesh")
        folders.give_up = follower.forget_digest

    async def resolve_lora(
        self, base_model_name: str, lora_name: str, *_more: object, **_named: object
    ) -> Any:
        """The adapter behind a model's name, or None where the store has none for this vLLM.

        The store is asked each time, and the request carries the card's identity: another
        version has another name, another number and another path, so that neither an adapter nor
        a prefix cache of one can stand for the other. No two requests have one name: vLLM gives
        each a number of its own, holds those of equal name for the same, and its engine dies of
        an adapter whose number it can't find.

        Args:
            base_model_name: ignored; names are spelt in many ways, fingerprints are not.
            lora_name: what the request calls its model.
            _more: what other versions of vLLM pass besides; ignored, as is `_named`.
        """
        if not store.is_reference(lora_name):
            return None  # Not one of ours: another resolver may know it.
        loop = asyncio.get_running_loop()
        try:
            card, path = await loop.run_in_executor(self._threads, self._materialised, lora_name)
        except errors.NotFoundError as error:
            _log.info("%s", error)
            return None
        except (errors.CardError, OSError) as error:
            _log.error("skill card %s is not served: %s", lora_name, error)
            return None
        self._follower.follow(lora_name, card.digest)
        return self._make_request(
            lora_name=f"{card.identity}#{next(self._answers)}",
            lora_int_id=adapter_id(card.digest),
            lora_path=str(path),
        )

    def _materialised(self, reference: str) -> tuple[store.Card, pathlib.Path]:
        card = self._cards.find(reference)
        if card.base_fingerprint not in ("", self._base_fingerprint):
            raise errors.MismatchError(
                f"it was made for the base model with fingerprint {card.base_fingerprint}; this "
                f"vLLM serves {self._base_fingerprint}"
            )

        def make(folder: pathlib.Path) -> None:
            peft_folder.write(self._cards.fetch(card), self._base_fingerprint, folder)

        return card, self._folders.folder(card.digest, make)


def adapter_id(digest: str) -> int:
    """A number that tells adapters apart, the same in every process; above 0."""
    return int(digest[:_ID_DIGITS], 16) + 1
