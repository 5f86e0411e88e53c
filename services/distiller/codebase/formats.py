"""Samples as JSON lines in the forms that other trainers read, and back.

OpenAI messages are the canonical form; Alpaca and ShareGPT are exports of the same rows. Each row
says beside it what the sample is of, so that nothing is lost on the way there and back.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterable
from typing import Any

from shared import errors
from shared.flight import samples

_ABOUT = ("kind", "path", "symbol", "language", "licence", "commit", "teacher", "held_out")
_Row = dict[str, Any]


class Format(enum.StrEnum):
    """A form of rows."""

    MESSAGES = "messages"
    """`messages` of `role` and `content`, as OpenAI's fine-tuning and TRL read them."""
    ALPACA = "alpaca"
    """`instruction`, `input` and `output` (Taori et al. 2023)."""
    SHAREGPT = "sharegpt"
    """`conversations` of `from` and `value`."""


def to_jsonl(form: Format, rows: Iterable[samples.Sample]) -> bytes:
    """The rows as JSON lines; equal samples give equal bytes."""
    write = _WRITERS[form]
    lines = [json.dumps(write(one) | _about(one), ensure_ascii=False) for one in rows]
    return "".join(f"{line}\n" for line in lines).encode()


def from_jsonl(form: Format, data: bytes) -> list[samples.Sample]:
    """Reads what `to_jsonl` wrote.

    Raises:
        errors.InvalidInputError: a line is not of this form; the message names it.
    """
    read, found = _READERS[form], list[samples.Sample]()
    # Not `splitlines`: JSON leaves some of the signs that it would part lines at as they are.
    for number, line in enumerate(data.decode(errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            instruction, input_, output = read(row)
            about = {name: row[name] for name in _ABOUT} | {"kind": samples.Kind(row["kind"])}
            texts = (instruction, input_, output, *(about[name] for name in _ABOUT[1:-1]))
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a text is missing")
            found.append(
                samples.Sample(instruction=instruction, input=input_, output=output, **about)
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise errors.InvalidInputError(
                f"line {number} is not of the {form} form: {errors.brief(repr(error))}"
            ) from error
    return found


def _about(one: samples.Sample) -> _Row:
    return {name: getattr(one, name) for name in _ABOUT}


def _to_messages(one: samples.Sample) -> _Row:
    messages = [
        {"role": "user", "content": one.question},
        {"role": "assistant", "content": one.output},
    ]
    return {"messages": messages, "instruction": one.instruction}


def _from_messages(row: _Row) -> tuple[str, str, str]:
    asked, answered = row["messages"]
    if (asked["role"], answered["role"]) != ("user", "assistant"):
        raise ValueError("roles")
    return (*_parted(asked["content"], row["instruction"]), answered["content"])


def _to_alpaca(one: samples.Sample) -> _Row:
    return {"instruction": one.instruction, "input": one.input, "output": one.output}


def _from_alpaca(row: _Row) -> tuple[str, str, str]:
    return row["instruction"], row["input"], row["output"]


def _to_sharegpt(one: samples.Sample) -> _Row:
    conversation = [
        {"from": "human", "value": one.question},
        {"from": "gpt", "value": one.output},
    ]
    return {"conversations": conversation, "instruction": one.instruction}


def _from_sharegpt(row: _Row) -> tuple[str, str, str]:
    asked, answered = row["conversations"]
    if (asked["from"], answered["from"]) != ("human", "gpt"):
        raise ValueError("speakers")
    return (*_parted(asked["value"], row["instruction"]), answered["value"])


def _parted(question: str, instruction: str) -> tuple[str, str]:
    """Undoes `Sample.question`."""
    if not question.startswith(instruction):
        raise ValueError("the question does not begin with its instruction")
    return instruction, question[len(instruction) :].removeprefix("\n\n" if instruction else "")


_WRITERS: dict[Format, Callable[[samples.Sample], _Row]] = {
    Format.MESSAGES: _to_messages,
    Format.ALPACA: _to_alpaca,
    Format.SHAREGPT: _to_sharegpt,
}
_READERS: dict[Format, Callable[[_Row], tuple[str, str, str]]] = {
    Format.MESSAGES: _from_messages,
    Format.ALPACA: _from_alpaca,
    Format.SHAREGPT: _from_sharegpt,
}
