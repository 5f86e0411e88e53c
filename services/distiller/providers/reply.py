"""The shapes in which language models answer, how they are read, and the pairs that come out."""

from __future__ import annotations

import dataclasses
from typing import Any, Generic, Literal, TypeVar

import pydantic

from services.distiller.providers import base, prompts
from shared.flight import datasets

_SCORE = 0.8
"""A language model's own word, which nobody has checked yet."""
_LONGEST_REASON = 300


class MalformedReplyError(Exception):
    """An answer that is not of the shape; the message tells the model what is wrong with it."""


def _all_required(schema: dict[str, Any]) -> None:
    schema["required"] = list(schema["properties"])
    for field in schema["properties"].values():
        field.pop("default", None)


class Shape(pydantic.BaseModel):
    """An answer, or a part of one."""

    # Strict structured outputs want every object closed and every field required; a server that
    # does not hold its model to the schema may leave out what has a default.
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", json_schema_extra=_all_required)


class Fact(Shape):
    """One fact, or what follows from it or contrasts with it, in many wordings."""

    kind: Literal["fact", "implication", "contrast"] = "fact"
    asked: list[int]
    question: str
    answer: str
    wordings: list[str]


class Reply(Shape):
    """A teacher's whole answer."""

    title: str
    facts: list[Fact]


S = TypeVar("S", bound=Shape)


@dataclasses.dataclass(frozen=True)
class Form(Generic[S]):
    """How a model is to answer."""

    name: str
    """Of the schema, for the provider."""
    rules: str
    """What the model is told before anything else."""
    example: str
    """The shape in words, for a model that can't be held to a schema by its server."""
    shape: type[S]

    @property
    def rules_with_shape(self) -> str:
        """The rules for such a model."""
        return self.rules + self.example


FACTS = Form("facts", prompts.SYSTEM, prompts.JSON_SHAPE, Reply)
"""Questions and answers."""


def parse(text: str, form: Form[S]) -> S:
    """Reads an answer, also where prose or a code fence stands around the JSON.

    Raises:
        MalformedReplyError: says what is wrong.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise MalformedReplyError("it contains no JSON object")
    try:
        return form.shape.model_validate_json(text[start : end + 1])
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = f"{first['msg']} at {place}" if place else first["msg"]
        raise MalformedReplyError(reason[:_LONGEST_REASON]) from error


def to_pairs(reply: Reply, request: base.QARequest, teacher: str) -> list[datasets.QAPair]:
    """Pairs in which the users' questions stand word for word.

    Args:
        reply: what the teacher said; its `asked` numbers count the request's queries from 1.
        request: what it was asked.
        teacher: provider and model.

    Returns:
        At most `request.count` pairs, facts before what belongs to them.
    """
    pairs = []
    facts = sorted(reply.facts, key=lambda fact: fact.kind != "fact")
    for fact in facts[: request.count]:
        asked = [request.queries[at - 1] for at in fact.asked if 0 < at <= len(request.queries)]
        question, *others = dict.fromkeys([*asked, fact.question, *fact.wordings])
        pairs.append(
            datasets.QAPair(
                question=question,
                answer=fact.answer,
                paraphrases=tuple(others),
                source=f"{teacher}: {reply.title}",
                teacher=teacher,
                score=_SCORE,
                kind=datasets.Kind(fact.kind),
                passage=request.passage,
            )
        )
    return pairs


def title_of(pair: datasets.QAPair) -> str:
    """The title that `to_pairs` wrote into a pair's source."""
    return pair.source.removeprefix(f"{pair.teacher}: ")
