"""Lessons that a teacher writes: about the most useful definitions, one call for each.

Words and questions are the teacher's, answers are the repository's wherever there are any: what it
writes is an explanation, an instruction to write the definition by, a test, or a clumsier version
to come from. Nothing leaves before a last look for secrets; where that finds any, the definition is
not sent. Drafts only: `checks` judges them as all others.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence

import structlog

from services.distiller.codebase import chunks
from services.distiller.codebase.lessons import checks, journal, source, verdicts
from services.distiller.providers import base
from shared import errors
from shared.flight import samples

_log = structlog.get_logger(__name__)
_MOST_CALL_SITES = 3
_MOST_SENT_CHARACTERS = 20_000
"""About 6,000 tokens: larger definitions are not sent."""


@dataclasses.dataclass(frozen=True)
class Taught:
    """What came of asking."""

    drafts: tuple[samples.Sample, ...] = ()
    asked: int = 0
    """Definitions that were sent, now or before."""
    withheld: dict[str, int] = dataclasses.field(default_factory=dict)
    """Definitions that were not sent, by reason."""
    failed: dict[str, int] = dataclasses.field(default_factory=dict)
    """Those to which no usable answer came, by reason."""


class Teaching:
    """Asks one teacher, or a chain that looks like one."""

    def __init__(
        self, teacher: base.CloudProvider, kept: journal.Journal | None, scrub: checks.Scrub
    ) -> None:
        """Takes what it works with.

        Args:
            teacher: one that writes code.
            kept: remembers answers across restarts.
            scrub: the last look for secrets.
        """
        self._teacher, self._journal, self._scrub = teacher, kept, scrub

    async def teach(
        self,
        task_id: str,
        commit: str,
        chosen: Sequence[chunks.Chunk],
        on_progress: Callable[[int, int], Awaitable[None]],
    ) -> Taught:
        """Asks about each definition; what was answered before is not asked again.

        One whose answer can't be used is passed over.

        Args:
            task_id: whose budget pays.
            commit: that the definitions were read at.
            chosen: definitions, the most useful first.
            on_progress: told how many are done, and of how many.

        Raises:
            errors.TeacherUnavailableError: no teacher could be asked; what was answered is kept.
            errors.BudgetError: the budget is spent; what was answered is kept.
        """
        drafts, asked = list[samples.Sample](), 0
        withheld, failed = dict[str, int](), dict[str, int]()
        for done, chunk in enumerate(chosen):
            await on_progress(done, len(chosen))
            request = _request(task_id, chunk)
            reason = await asyncio.to_thread(self._withheld, request)
            if reason:
                withheld[reason] = withheld.get(reason, 0) + 1
                continue
            try:
                answer = await self._answer(request)
            except (errors.TeacherError, errors.NotFoundError) as error:
                _log.warning("definition passed over", symbol=chunk.symbol, reason=str(error))
                name = type(error).__name__
                failed[name] = failed.get(name, 0) + 1
                continue
            asked += 1
            drafts += _drafts(chunk, answer, commit)
        return Taught(tuple(drafts), asked, withheld, failed)

    async def _answer(self, request: base.CodeRequest) -> base.CodeAnswer:
        known = self._journal.answer(request) if self._journal is not None else None
        if known is not None:
            return known
        answer = await self._teacher.write_code(request)
        if self._journal is not None:
            self._journal.keep(request, answer)
        return answer

    def _withheld(self, request: base.CodeRequest) -> str:
        """Why a request must not leave; empty where it may."""
        if len(request.shown) > _MOST_SENT_CHARACTERS:
            return verdicts.Reason.LENGTH
        names = (request.path, request.symbol)
        code = (request.imports, request.text, *request.call_sites)
        clean = all(self._scrub(text, "") == text for text in names) and all(
            self._scrub(text, request.path) == text for text in code
        )
        return "" if clean else verdicts.Reason.SECRET


def _request(task_id: str, chunk: chunks.Chunk) -> base.CodeRequest:
    return base.CodeRequest(
        task_id=task_id,
        language=chunk.language,
        path=chunk.path,
        symbol=chunk.symbol,
        imports="\n".join(chunk.imports),
        text=source.dedented(chunk.text),
        call_sites=chunk.call_sites[:_MOST_CALL_SITES],
    )


def _drafts(chunk: chunks.Chunk, answer: base.CodeAnswer, commit: str) -> list[samples.Sample]:
    real = source.dedented(chunk.text)
    task, change = answer.task.strip(), answer.change.strip()
    before, test = _unfenced(answer.before), _unfenced(answer.test)
    wanted = {
        samples.Kind.EXPLAIN: (f"Explain `{chunk.symbol}`.", real, answer.explanation.strip()),
        samples.Kind.WRITE: (task, "\n".join(chunk.imports), real),
        samples.Kind.TEST: (f"Write a test of `{chunk.symbol}`.", real, test),
        samples.Kind.REFACTOR: (change, before, real),
    }
    missing = {
        samples.Kind.WRITE: not task,
        samples.Kind.EXPLAIN: not answer.explanation.strip(),
        samples.Kind.TEST: not test,
        samples.Kind.REFACTOR: not (change and before),
    }
    return [
        samples.Sample(
            kind=kind,
            instruction=instruction,
            input=input_,
            output=output,
            path=chunk.path,
            symbol=chunk.symbol,
            language=chunk.language,
            licence=chunk.licence,
            commit=commit,
            teacher=answer.teacher,
        )
        for kind, (instruction, input_, output) in wanted.items()
        if not missing[kind]
    ]


def _unfenced(text: str) -> str:
    """Code without the fence that models like to put around it."""
    told = text.strip("\n")
    if told.lstrip().startswith("```") and told.rstrip().endswith("```"):
        told = told.strip().partition("\n")[2].rpartition("```")[0]
    return source.dedented(told.strip("\n"))
