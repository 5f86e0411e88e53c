"""What every teacher offers: question/answer pairs about a request, and what questions are about.

Language models write about code, too.

Knows nothing about any provider. `registry` builds the configured one, `CloudDistiller` asks it.
"""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Sequence

from services.distiller.providers import breaker
from shared import errors
from shared.flight import datasets


@dataclasses.dataclass(frozen=True)
class QARequest:
    """What a teacher is asked for."""

    topic: str
    """What to teach, in words; empty where the questions say it."""
    queries: tuple[str, ...]
    """Questions that users asked: each one that the teacher can answer must be among the pairs,
    word for word, as a question or as a wording of one."""
    document: str = ""
    """Name of the document in the knowledge folder to teach from; empty for any source."""
    count: int = 20
    """Most facts wanted."""
    wordings: int = 10
    """Rewordings wanted for each fact."""
    passage: str = ""
    """What to answer from; empty for whatever the teacher knows."""
    only_queries: bool = False
    """Nothing is wanted but answers to the queries, in few words."""
    task_id: str = ""
    """The learning task whose budget pays; says nothing about what is asked."""
    teacher: str = ""
    """Of a chain, asked first: provider, or provider:model."""


@dataclasses.dataclass(frozen=True)
class Location:
    """What a question is about, as far as a teacher's sources tell."""

    topic_key: str
    """Equal for questions that belong into one skill; empty where the sources say nothing."""
    score: float
    """How sure that is, 0 to 1."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """What the pairs of one request are about."""

    title: str = ""
    """A few words, such as a document's heading; empty where the provider has none."""
    summary: str = ""
    """How a document begins: names that belong to the subject and that the pairs may leave out."""


@dataclasses.dataclass(frozen=True)
class CodeRequest:
    """A definition of a code base that a teacher is asked about."""

    task_id: str
    """The learning task whose budget pays; says nothing about what is asked."""
    language: str
    path: str
    symbol: str
    imports: str
    """The file's imports that it uses."""
    text: str
    """The definition."""
    call_sites: tuple[str, ...] = ()
    """Lines around places where it is called."""

    @property
    def shown(self) -> str:
        """All of the repository that the teacher sees besides path and symbol."""
        told = {"imports": self.imports, "definition": self.text, "used in": self.call_sites}
        return json.dumps(told, ensure_ascii=False, indent=1)


@dataclasses.dataclass(frozen=True)
class CodeAnswer:
    """What a teacher wrote about a definition; empty where it was not sure."""

    teacher: str
    """Provider and model."""
    explanation: str = ""
    """Prose."""
    task: str = ""
    """An instruction from which one would write the definition."""
    test: str = ""
    """Code that tests it."""
    before: str = ""
    """The definition as it might have been before a change,"""
    change: str = ""
    """and an instruction that leads from there to what it is."""


class CloudProvider(abc.ABC):
    """A teacher."""

    name: str
    """Provider and model, such as `openai:gpt-4.1`."""
    queries_a_call: int = 8
    """Most questions in one call: with more, language models begin to skip some."""
    repeats: frozenset[str] = frozenset()
    """Names of the teachers in here that say the same however often they are asked."""

    writes_code: bool = False
    """Whether `write_code` may be asked."""

    @abc.abstractmethod
    async def generate_qa(self, request: QARequest) -> list[datasets.QAPair]:
        """Makes pairs for the request's questions and for what belongs to the same topic.

        What the teacher is not sure of is left out.

        Returns:
            At most `request.count` pairs with their rewordings as `paraphrases`.

        Raises:
            errors.TeacherUnavailableError: down, timed out, out of quota.
            errors.TeacherError: refused, does not accept the key, or answered in a wrong shape
                even after it was asked to repair that.
            errors.NotFoundError: the sources say nothing about the request.
        """

    async def write_code(self, request: CodeRequest) -> CodeAnswer:
        """What is worth learning about a definition of a code base.

        Raises:
            errors.TeacherUnavailableError: down, timed out, out of quota.
            errors.TeacherError: refused, or answered in a wrong shape.
            errors.PreconditionError: this teacher writes nothing by itself.
        """
        raise errors.PreconditionError(
            f"{self.name} has no language model to write about code; configure one "
            "(evolution.provider_type), or learn without a teacher"
        )

    async def prepare(self) -> None:
        """Gets ready for the first request, where that takes a while.

        Raises:
            errors.SkillmeshError: it could not; requests do what is needed themselves.
        """
        return None

    async def locate(self, queries: Sequence[str]) -> list[Location]:
        """What each question is about; a cloud teacher groups nothing.

        Raises:
            errors.TeacherUnavailableError: the sources can't be read now.
        """
        return [Location(topic_key="", score=0.0) for _ in queries]

    async def subject(self, request: QARequest, pairs: Sequence[datasets.QAPair]) -> Subject:
        """What the skill that these pairs make is about.

        Args:
            request: what was asked for.
            pairs: what this provider answered, perhaps before a restart: nothing may be kept
                in memory between the two calls.
        """
        return Subject()

    def circuits(self) -> list[breaker.Circuit]:
        """Whether each teacher behind this one is asked or left alone."""
        return []

    async def aclose(self) -> None:
        """Closes connections; the provider is not asked any more."""
        return None
