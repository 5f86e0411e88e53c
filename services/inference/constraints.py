"""Answers that are JSON and fit a schema: which tokens may come next.

The library llguidance compiles a schema into a grammar and reads the answer token by token; before
each one is chosen it says which keep to the grammar. Knows nothing about requests or the batch.
"""

from __future__ import annotations

import asyncio
import collections
import json
import threading
from collections.abc import Iterator
from typing import Any

import llguidance
import numpy as np
import torch

from services.inference import decoding
from shared import errors
from shared.models import base as bases

LONGEST_SCHEMA_CHARACTERS = 100_000
_MOST_KEPT = 64
"""Compiled schemas; those used longest ago go."""
_MOST_TRIED = 100
"""Compilations for the place of one mistake."""
_OPTIONS = {
    # Models that do not know what to say would go on with spaces to the end of their tokens.
    "whitespace_flexible": True,
    "whitespace_pattern": r"[ ]|\n[ ]{0,32}",
    # What it does not know would not be kept to.
    "lenient": False,
}
_MAPS = ("properties", "patternProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "additionalItems", "propertyNames", "contains", "not")


class Constraint:
    """Of one answer; belongs to the model's thread once the answer has begun."""

    def __init__(self, matcher: Any) -> None:
        """Takes the matcher of llguidance, at its beginning."""
        self._matcher = matcher

    @property
    def ended(self) -> bool:
        """Whether the JSON is whole and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    def allowed(self, logits_V: torch.Tensor) -> tuple[torch.Tensor, int, float]:
        """The logits of the tokens that may come next, the likeliest of them and its logit.

        Args:
            logits_V: (vocabulary,); stays as it is.

        Returns:
            The logits with minus infinity for all others; NaN and infinity go through.

        Raises:
            errors.InvalidInputError: the schema is too complex to be followed.
            errors.PreconditionError: no token of the vocabulary can come next.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        mask = np.zeros(len(logits_V), dtype=np.bool_)
        known = np.unpackbits(bits, bitorder="little", count=min(len(bits) * 8, len(mask)))
        mask[: len(known)] = known
        if not mask.any():
            raise errors.PreconditionError(
                "json_schema: no token of the base model's vocabulary can come next; ask without "
                "a schema, or another base model"
            )
        allowed = torch.from_numpy(mask).to(logits_V.device)
        scores_V = logits_V.masked_fill(~allowed, -torch.inf)
        highest, likeliest = scores_V.max(-1)
        return scores_V, int(likeliest), float(highest)

    def take(self, token: int) -> None:
        """Reads the token that was chosen.

        Raises:
            errors.InvalidInputError: the schema is too complex to be followed.
        """
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise errors.InvalidInputError(
                f"json_schema can't be followed: {_reason(self._matcher.get_error())}; simplify it"
            )


class Schemas:
    """Makes constraints for the answers of one base model."""

    def __init__(self, base: bases.BaseModel) -> None:
        """Takes the model; its tokenizer is read when the first schema comes."""
        self._base = base
        self._lock = threading.Lock()
        self._tokenizer: Any = None
        self._compiled: collections.OrderedDict[str, Any] = collections.OrderedDict()

    async def constraint(self, schema: str) -> Constraint:
        """What an answer must keep to; compiled in a thread, unless it was lately.

        Raises:
            errors.InvalidInputError: it is no JSON schema, or has what llguidance does not know.
            errors.PreconditionError: llguidance can't read the base model's tokenizer.
        """
        found = self._compiled.get(schema)
        if found is None:
            found = self._compiled[schema] = await asyncio.to_thread(self._compile, schema)
        self._compiled.move_to_end(schema)
        while len(self._compiled) > _MOST_KEPT:
            self._compiled.popitem(last=False)
        return Constraint(found.deep_copy())

    def _compile(self, text: str) -> Any:
        schema = _parsed(text)
        tokenizer = self._read_tokenizer()
        matcher = _matcher(tokenizer, schema)
        if matcher.is_error():
            reason = matcher.get_error()
            place = _place(tokenizer, schema, reason)
            raise errors.InvalidInputError(
                f"json_schema is not supported at {place or 'its top'}: {_line(reason)}"
            )
        return matcher

    def _read_tokenizer(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._base)
            return self._tokenizer


def _tokenizer(base: bases.BaseModel) -> Any:
    backend = getattr(base.tokenizer, "backend_tokenizer", None)
    try:
        if backend is None:
            raise ValueError("it is not of the library tokenizers")
        return llguidance.LLTokenizer(
            backend.to_str(),
            eos_token=sorted(decoding.end_ids(base.model, base.tokenizer)),
            slices=llguidance.LLTokenizer.json_slices(),
        )
    except Exception as error:
        raise errors.PreconditionError(
            f"json_schema: the tokenizer of base model {base.id} can't be used for answers in a "
            f"given form: {_line(str(error))}; ask without a schema"
        ) from error


def _parsed(text: str) -> Any:
    if len(text) > LONGEST_SCHEMA_CHARACTERS:
        raise errors.InvalidInputError(
            f"json_schema has {len(text):,} characters, at most {LONGEST_SCHEMA_CHARACTERS:,} are "
            "read; shorten it"
        )
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.InvalidInputError(f"json_schema is not JSON: {error}") from error
    if schema is True:
        return {}
    if not isinstance(schema, dict):
        raise errors.InvalidInputError(f"json_schema is {text[:40]}, expected an object or true")
    return schema


def _matcher(tokenizer: Any, schema: Any) -> Any:
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides=_OPTIONS)
    except ValueError as error:
        raise errors.InvalidInputError(f"json_schema: {_line(str(error))}") from error
    return llguidance.LLMatcher(tokenizer, grammar, log_level=0)


def _place(tokenizer: Any, schema: Any, reason: str) -> str:
    """JSON pointer to the innermost schema that fails for a reason when all beside it is free."""
    pointer, tried = "", 0
    while True:
        for path in _children(_at(schema, pointer)):
            tried += 1
            if tried > _MOST_TRIED:
                return pointer
            alone = _without_others(schema, pointer, path)
            if _matcher(tokenizer, alone).get_error() == reason:
                schema, pointer = alone, pointer + path
                break
        else:
            return pointer


def _children(schema: Any) -> Iterator[str]:
    """Pointers from a schema to those that it is made of."""
    if not isinstance(schema, dict):
        return
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            yield from (f"/{key}/{_escaped(name)}" for name in schema[key])
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from (f"/{key}/{at}" for at in range(len(schema[key])))
    yield from (f"/{key}" for key in _SCHEMAS if isinstance(schema.get(key), dict | bool))


def _without_others(schema: Any, pointer: str, path: str) -> Any:
    """The same with all children free but one, as far as a form has them; definitions stay."""
    copy = json.loads(json.dumps(schema))
    here = _at(copy, pointer)
    for other in _children(here):
        if other != path:
            parent, _, name = other.rpartition("/")
            holder = _at(here, parent)
            # A choice that takes everything would make all beside it needless.
            free = {"type": "null"} if parent in ("/anyOf", "/oneOf") else True
            holder[int(name) if isinstance(holder, list) else _unescaped(name)] = free
    return copy


def _at(schema: Any, pointer: str) -> Any:
    for name in pointer.split("/")[1:]:
        schema = schema[int(name)] if isinstance(schema, list) else schema[_unescaped(name)]
    return schema


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _unescaped(name: str) -> str:
    return name.replace("~1", "/").replace("~0", "~")


def _reason(told: str) -> str:
    """What llguidance says, without the state of its parser, which it appends."""
    return _line(told.partition("<state>")[0])


def _line(text: str) -> str:
    return " ".join(text.split())[:400]
