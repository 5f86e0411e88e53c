"""How a base model is asked to go on with code: one form for training and for serving.

Where the tokenizer knows fill-in-the-middle (Bavarian et al. 2022), its special tokens say what
stands before the cursor and what behind it; any other model reads what stands before, as it is.
Knows nothing about cards, samples or requests.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from shared.models import base as bases

_SUFFIX_SHARE = 0.25
"""Of the room, at most: what stands before the cursor tells more."""
_LEAD = "\n"
"""Text in front of a continuation while it is cut into tokens: some tokenizers put a space before
whatever they are given, which does not belong behind other text."""


@dataclasses.dataclass(frozen=True)
class Marks:
    """The special tokens of fill-in-the-middle."""

    prefix: str
    """In front of what stands before the cursor."""
    suffix: str
    """In front of what stands behind it."""
    middle: str = ""
    """In front of what is to be filled in; empty where the prefix comes last and goes on."""

    @property
    def every(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(mark for mark in (self.prefix, self.suffix, self.middle) if mark)


MARKS = (
    # Qwen2.5-Coder, CodeGemma.
    Marks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    # StarCoder, StarCoder2, Granite, Stable Code.
    Marks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    # SantaCoder.
    Marks("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    # CodeLlama.
    Marks("▁<PRE>", "▁<SUF>", "▁<MID>"),
    # DeepSeek-Coder.
    Marks("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    # Codestral.
    Marks("[PREFIX]", "[SUFFIX]"),
)
_ENDS = (
    "<|endoftext|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|file_separator|>",
    "<file_sep>", "▁<EOT>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
"""What ends a completion beside the end token, by model: the next file, or nothing more."""


def marks(base: bases.BaseModel) -> Marks | None:
    """The fill-in-the-middle tokens that the tokenizer knows; None where it knows none."""
    known = (one for one in MARKS if all(_id(base, mark) is not None for mark in one.every))
    return next(known, None)


def prompt_ids(
    base: bases.BaseModel, prefix: str, suffix: str = "", most_tokens: int | None = None
) -> tuple[int, ...]:
    """Token ids after which the model goes on with what belongs at the cursor.

    What it says first is what `repeated` tells.

    Args:
        base: its tokenizer decides the form.
        prefix: the text before the cursor.
        suffix: the text behind it; not read by a model without fill-in-the-middle.
        most_tokens: what there is room for: the prefix is cut on its left, the suffix on its right.
    """
    form, start = marks(base), _start(base)
    prefix = prefix.removesuffix(repeated(base, prefix))
    # A model reads something at least: a new line is what an empty file begins like.
    before = _ids(base, prefix or _LEAD)
    if form is None:
        room = _room(most_tokens, len(start), len(before))
        return (*start, *_last(before, room))
    after = continuation_ids(base, suffix) if suffix else ()
    fixed = len(start) + len(form.every)
    room = _room(most_tokens, fixed, len(before) + len(after))
    after = after[: max(int(_SUFFIX_SHARE * room), room - len(before))]
    before = _last(before, room - len(after))
    opening, behind = (_id(base, form.prefix), *before), (_id(base, form.suffix), *after)
    last = (_id(base, form.middle),) if form.middle else ()
    parts = (*opening, *behind, *last) if form.middle else (*behind, *opening)
    return (*start, *(part for part in parts if part is not None))


def repeated(base: bases.BaseModel, prefix: str) -> str:
    """What a completion says again of the end of its prefix: the space that a cursor stands behind.

    A word is one token with the space before it. Behind a space it would have to be cut into tokens
    as nowhere else, so the space is taken back and said again ("token healing"). A model with
    fill-in-the-middle was trained on cursors anywhere.
    """
    return " " if marks(base) is None and prefix.endswith(" ") and len(prefix) > 1 else ""


def continuation_ids(base: bases.BaseModel, text: str) -> tuple[int, ...]:
    """Token ids of text that goes on behind other text, without an end token."""
    lead, together = _ids(base, _LEAD), _ids(base, _LEAD + text)
    # Where both grew into one token the tokenizer puts nothing in front, so that it needs no lead.
    return together[len(lead) :] if together[: len(lead)] == lead else _ids(base, text)


def text(base: bases.BaseModel, ids: Sequence[int]) -> str:
    """What a completion's token ids say, with the space that it may begin with."""
    decoded: str = base.tokenizer.decode(
        [*_ids(base, _LEAD), *ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return decoded.removeprefix(_LEAD)


def lead_ids(base: bases.BaseModel) -> tuple[int, ...]:
    """Token ids to decode a completion behind, so that the space that it may begin with stays."""
    return _ids(base, _LEAD)


def end_ids(base: bases.BaseModel) -> frozenset[int]:
    """Token ids that end a completion: the end token, and what such models say instead of it."""
    form = marks(base)
    said = (*_ENDS, *(form.every if form else ()))
    found = {number for mark in said if (number := _id(base, mark)) is not None}
    return frozenset({base.tokenizer.eos_token_id, *found})


def _id(base: bases.BaseModel, mark: str) -> int | None:
    """The number of a token, None where the vocabulary does not have it."""
    number: int | None = base.tokenizer.convert_tokens_to_ids(mark)
    # Unknown ones get the number of the unknown token, where there is one.
    known = number is not None and base.tokenizer.convert_ids_to_tokens(number) == mark
    return number if known else None


def _start(base: bases.BaseModel) -> tuple[int, ...]:
    """The token that a text begins with, where the tokenizer puts one there."""
    begin = base.tokenizer.bos_token_id
    made = base.tokenizer("")["input_ids"]
    return (begin,) if begin is not None and made[:1] == [begin] else ()


def _ids(base: bases.BaseModel, text: str) -> tuple[int, ...]:
    # A text that quotes a special token must not become one.
    return tuple(
        base.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    )


def _room(most_tokens: int | None, fixed: int, wanted: int) -> int:
    return wanted if most_tokens is None else max(0, min(wanted, most_tokens - fixed))


def _last(ids: tuple[int, ...], count: int) -> tuple[int, ...]:
    return ids[len(ids) - min(count, len(ids)) :]
