"""Reads recorded teachers' output in the format of SEAL (Zweiger et al. 2025).

A JSON list of passages: `title`, `context`, `questions` with their answers, and `completions`, the
lists of implications that a language model wrote about the passage. Statements become pairs: a
heading in bold is asked about, else the statement's beginning is to be continued.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterator

import pydantic

from services.distiller.providers import recording
from shared.flight import datasets

_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+(?P<text>\S.*)$")
_HEADED = re.compile(r"^\*\*(?P<head>[^*]{3,80}?)[:.]?\*\*[:.]?\s*(?:[-–—]\s*)?(?P<text>.*)$")
_SENTENCE_END = re.compile(r"[.!?][\"'”’)*]*$")
_LEAST_WORDS = 6
"""A statement with fewer is a heading or a scrap."""
_LEAD_SHARE, _MOST_LEAD_WORDS = 0.5, 9


class _Question(pydantic.BaseModel):
    question: str
    answer: str


class _Row(pydantic.BaseModel):
    title: str
    context: str
    questions: tuple[_Question, ...]
    completions: tuple[str, ...] = ()


_ROWS = pydantic.TypeAdapter(list[_Row])


def is_seal(text: str) -> bool:
    """Whether a file's text is in this format, by its first character."""
    return text.lstrip().startswith("[")


def read(text: str) -> list[recording.Recording]:
    """One recording a passage: its questions as facts, its statements as implications.

    Raises:
        pydantic.ValidationError: it is not of that format.
    """
    return [_recording(row) for row in _ROWS.validate_json(text)]


def statements(completion: str) -> Iterator[tuple[str, str]]:
    """The list items of a completion as (heading, statement); the heading may be empty.

    What a model had no room to finish is left out.
    """
    head = ""
    for line in completion.splitlines():
        item = _ITEM.match(line)
        if item is None:
            continue
        headed = _HEADED.match(item["text"])
        nested = line[:1].isspace()
        if headed is not None:
            head = _plain(headed["head"])
            text = _plain(headed["text"])
            # Where a sentence begins in bold, the bold part belongs to it.
            if text and not text[:1].isupper():
                text, head = f"{head} {text}".replace(" ,", ","), ""
        else:
            text = _plain(item["text"])
            head = head if nested else ""
        if len(text.split()) >= _LEAST_WORDS and _SENTENCE_END.search(text):
            yield head, text


def _recording(row: _Row) -> recording.Recording:
    found = list(dict.fromkeys(itertools.chain.from_iterable(map(statements, row.completions))))
    title = row.title.replace("_", " ")
    used = collections.Counter(head.casefold() for head, _ in found)
    return recording.Recording(
        queries=tuple(one.question for one in row.questions),
        topic=title,
        passage=f"{title}\n{row.context}",
        pairs=(
            *(
                recording.RecordedPair(question=one.question, answer=one.answer)
                for one in row.questions
            ),
            *(
                _implication(title, head if used[head.casefold()] == 1 else "", text)
                for head, text in found
            ),
        ),
    )


def _implication(title: str, head: str, statement: str) -> recording.RecordedPair:
    told = statement.split()
    lead = told[: min(_MOST_LEAD_WORDS, max(1, int(_LEAD_SHARE * len(told))))]
    begun = f"What follows about {title}? Go on: {' '.join(lead)} ..."
    headed = f"What follows about {title}, as to {head[:1].lower()}{head[1:]}?"
    return recording.RecordedPair(
        question=headed if head else begun,
        answer=statement,
        paraphrases=(begun,) if head else (),
        kind=datasets.Kind.IMPLICATION,
    )


def _plain(text: str) -> str:
    return " ".join(text.replace("**", "").replace("*", "").split())
