"""From samples of a code base to training examples: token ids with what is to be learned.

A completion is prompted as the inference node does it (`shared.models.completion`), everything
else by the chat template. Only outputs carry loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from services.trainer import data
from shared.flight import samples as flight
from shared.models import base as bases
from shared.models import completion

_OUTPUT_SHARE = 0.75
"""Of the context that the output of a completion may take: what goes before explains it."""


@dataclasses.dataclass(frozen=True)
class Lessons:
    """What there is to learn."""

    examples: tuple[data.Example, ...]
    cut: int
    """Prompts whose beginning, and texts whose end, did not fit."""
    dropped: int
    """Samples whose output did not fit, or had nothing in it."""


def lessons(
    base: bases.BaseModel,
    samples: Iterable[flight.Sample],
    context_tokens: int,
    whole_texts: bool = False,
    questions: bool = True,
) -> Lessons:
    """Examples of all samples that are not held out.

    Args:
        base: its tokenizer and chat template.
        samples: of a code base.
        context_tokens: prompt and output of an example, at most.
        whole_texts: whether definitions are learned as texts of their own as well.
        questions: whether samples that are asked by the chat template are learned.
    """
    taught = [sample for sample in samples if not sample.held_out]
    found: list[data.Example] = []
    cut = dropped = 0
    asked = [one for one in taught if questions or one.kind is flight.Kind.COMPLETE]
    for sample in asked:
        made = example(base, sample, context_tokens)
        if made is None:
            dropped += 1
            continue
        found.append(made)
        cut += sample.kind is flight.Kind.COMPLETE and len(made.prompt_ids) < len(
            completion.prompt_ids(base, sample.input)
        )
    for text in texts(taught) if whole_texts else ():
        ids = (*completion.continuation_ids(base, text), base.tokenizer.eos_token_id)
        prompt = completion.prompt_ids(base, "")
        room = context_tokens - len(prompt)
        cut += len(ids) > room
        found.append(data.Example("", text, prompt, ids[:room]))
    return Lessons(tuple(found), cut, dropped)


def example(
    base: bases.BaseModel, sample: flight.Sample, context_tokens: int, ended: bool = True
) -> data.Example | None:
    """One sample as token ids; None where its output does not fit or is empty.

    Args:
        base: its tokenizer and chat template.
        sample: what is asked and answered.
        context_tokens: prompt and output, at most. Of a completion the text before the cursor is
            cut on its left; a question is never cut.
        ended: whether the end token belongs to the output.
    """
    if sample.kind is flight.Kind.COMPLETE:
        again = completion.repeated(base, sample.input)
        answer = completion.continuation_ids(base, again + sample.output)
        room = context_tokens - len(answer) - ended
        fits = len(answer) <= _OUTPUT_SHARE * context_tokens
        prompt = completion.prompt_ids(base, sample.input, most_tokens=max(room, 0))
    else:
        answer = tuple(base.answer_ids(sample.output)[:-1])
        prompt = tuple(base.prompt_ids(sample.question))
        fits = len(prompt) + len(answer) + ended <= context_tokens
    if not fits or not answer or not prompt:
        return None
    end = (base.tokenizer.eos_token_id,) if ended else ()
    return data.Example(sample.question, sample.output, prompt, (*answer, *end))


def texts(samples: Sequence[flight.Sample]) -> list[str]:
    """Each definition once, with as much around it as the samples show."""
    found: dict[tuple[str, str], str] = {}
    for sample in samples:
        if sample.kind is flight.Kind.COMPLETE:
            text = sample.input + sample.output
        elif sample.kind is flight.Kind.WRITE:
            text = sample.output
        else:
            continue
        key = sample.path, sample.symbol
        found[key] = max(text, found.get(key, ""), key=len)
    return list(found.values())
