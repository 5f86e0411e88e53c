"""What each token says, in bytes: by itself, and as a part of the answer that it stands in.

Byte-level BPE and byte fallback spread a character over several tokens, so that text alone can't
tell who said what of it. Knows nothing about probabilities or requests.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any

_SPACE = "\u2581"
"""Stands for a space in SentencePiece's vocabularies."""
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Vocabulary:
    """The tokens of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Takes the tokenizer; it is asked as tokens come."""
        self._tokenizer = tokenizer
        self._added = tokenizer.added_tokens_decoder
        decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
        self._byte_level = _byte_level() if "ByteLevel" in repr(decoder) else None
        self._known: dict[int, bytes] = {}

    def is_special(self, token: int) -> bool:
        """Whether it is no part of any text."""
        added = self._added.get(token)
        return added is not None and bool(added.special)

    def utf8(self, token: int) -> bytes:
        """What it says; of a special one its name."""
        found = self._known.get(token)
        if found is None:
            found = self._known[token] = self._read(token)
        return found

    def _read(self, token: int) -> bytes:
        if token in self._added:
            return str(self._added[token].content).encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:  # The model's vocabulary may be wider than the tokenizer's.
            return b""
        if self._byte_level is not None:
            return bytes(self._byte_level[symbol] for symbol in piece)
        if (byte := _BYTE.fullmatch(piece)) is not None:
            return bytes.fromhex(byte[1])
        return str(piece).replace(_SPACE, " ").encode()


def shared_out(said: Sequence[bytes], text: str) -> list[tuple[str, bytes]]:
    """What each of several tokens adds to the text that they make together.

    A character counts for the token that completes it.

    Args:
        said: by each token, as its vocabulary has it.
        text: what the tokenizer makes of all of them, as far as it is told: it may lack what stands
            at the beginning.
    """
    reader = codecs.getincrementaldecoder("utf-8")("replace")
    parts = [reader.decode(one, at == len(said) - 1) for at, one in enumerate(said)]
    surplus = sum(map(len, parts)) - len(text)
    if surplus < 0 or "".join(parts)[surplus:] != text:
        # A tokenizer that writes something else than its tokens say.
        return [("", b"")] * (len(said) - 1) + [(text, text.encode())]
    found = []
    for part, one in zip(parts, said, strict=True):
        left_out = part[:surplus]
        surplus -= len(left_out)
        found.append((part[len(left_out) :], one[len(left_out.encode()) :]))
    return found


def _byte_level() -> Mapping[str, int]:
    """The symbols of byte-level BPE (Radford et al. 2019): printable bytes are their own."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in own]
    symbols = {chr(byte): byte for byte in own}
    return symbols | {chr(0x100 + at): byte for at, byte in enumerate(others)}
