"""Where an answer ends, and text out of tokens as they come.

Knows nothing about cards, queues or requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BROKEN = "\ufffd"
"""What a tokenizer writes for bytes that are no whole character yet."""


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer, from the generation settings and the tokenizer."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(int(one) for one in (*several, tokenizer.eos_token_id) if one is not None)


def context_tokens(model: Any) -> int | None:
    """How many tokens prompt and answer may have together; None where the model does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(found) if found else None


class TextPieces:
    """Turns tokens into pieces of text whose sum is the text of all tokens.

    A character may spread over several tokens, and a tokenizer may treat the first token of a text
    in its own way (SentencePiece drops its space). So each step decodes a short window twice, with
    and without the new tokens, and hands out the difference once it ends in a whole character.
    """

    def __init__(self, tokenizer: Any, behind: Sequence[int] = (), repeated: str = "") -> None:
        """Takes the tokenizer that made the tokens.

        Args:
            tokenizer: of the model.
            behind: tokens that the text goes on from; nothing for a text of its own.
            repeated: what is left out where the text begins with it.
        """
        self._tokenizer = tokenizer
        self._ids = list(behind)
        self._behind = self._told_to = len(self._ids)
        self._window_from = 0
        self._repeated = repeated

    def add(self, token: int) -> str:
        """Text that this token completes; often empty in the middle of a character."""
        self._ids.append(token)
        fresh = self._fresh()
        if not fresh or fresh.endswith(_BROKEN):
            return ""
        self._window_from, self._told_to = self._told_to, len(self._ids)
        return self._new(fresh)

    def rest(self) -> str:
        """What is still held back when the tokens have ended."""
        fresh = self._fresh()
        self._window_from = self._told_to = len(self._ids)
        return self._new(fresh)

    @property
    def tokens(self) -> int:
        """Tokens added so far."""
        return len(self._ids) - self._behind

    def _new(self, fresh: str) -> str:
        """Without what is repeated, which stands at the beginning alone."""
        if not fresh:
            return fresh
        repeated, self._repeated = self._repeated, ""
        return fresh.removeprefix(repeated)

    def _fresh(self) -> str:
        told = self._decode(self._ids[self._window_from : self._told_to])
        return self._decode(self._ids[self._window_from :])[len(told) :]

    def _decode(self, ids: list[int]) -> str:
        # Clean-up of spaces would change text that was already handed out.
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
