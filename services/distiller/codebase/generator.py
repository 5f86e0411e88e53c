"""`DatasetGenerator`: from a repository to lessons in its style, checked and parted.

Reads the repository, makes lessons of its tree and history, asks a teacher where there is one, and
keeps what stands every check. Knows nothing about gRPC, Flight, or training.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Iterable

from services.distiller import distillation
from services.distiller.codebase import (
    chunks,
    committed,
    dataset_card,
    extraction,
    history,
    languages,
    repository,
    secrets,
)
from services.distiller.codebase.lessons import (
    checks,
    holding_out,
    journal,
    offline,
    parsing,
    repeats,
    teaching,
    verdicts,
)
from services.distiller.providers import base
from shared import codebase_settings, errors
from shared.flight import samples

_READ, _SEARCHED, _MADE, _TAUGHT = 0.4, 0.5, 0.7, 0.95
"""Shares of the progress at the end of the slow parts."""
_MOST_REASONS = 5
"""Why files were left out, in an error."""
_SPARE = 1.5
"""So many times the samples wanted are made: some give away what is held out."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What happened on the way."""

    rejected: tuple[verdicts.Rejected, ...]
    extraction: extraction.Extraction
    taught: teaching.Taught


@dataclasses.dataclass(frozen=True)
class Generated:
    """The lessons of one repository."""

    samples: tuple[samples.Sample, ...]
    """The most useful definitions first; all of one definition on the same side."""
    card: dataset_card.Card
    report: Report


@dataclasses.dataclass(frozen=True)
class _Read:
    """A repository as lessons are made of it."""

    found: extraction.Extraction
    definitions: dict[tuple[str, str], chunks.Chunk]
    """By path and symbol, the most useful first; those that the commit holds."""
    uncommitted: int
    pairs: dict[str, history.Pair]


class DatasetGenerator:
    """Makes the lessons of repositories."""

    def __init__(
        self,
        settings: codebase_settings.Codebase,
        teacher: base.CloudProvider | None = None,
        kept: journal.Journal | None = None,
    ) -> None:
        """Takes what it works with.

        Args:
            settings: what is taught, and how much.
            teacher: asked about the most useful definitions if it writes code; nobody is asked
                without one.
            kept: remembers the teacher's answers across restarts.
        """
        self._settings = settings
        self._teacher = teacher if teacher is not None and teacher.writes_code else None
        self._journal = kept

    async def generate(
        self,
        what: pathlib.Path | repository.Repository,
        on_progress: distillation.ProgressCallback | None = None,
        task_id: str = "",
    ) -> Generated:
        """Makes the lessons of a repository; equal commits and settings give equal ones.

        Args:
            what: the repository, or the folder where it lies.
            on_progress: told how far it is.
            task_id: whose budget pays the teacher, and whose answers are remembered.

        Raises:
            errors.InvalidInputError: there is no repository, or git can't read it.
            errors.NotFoundError: nothing in it can be taught.
            errors.TeacherUnavailableError: no teacher could be asked; ask again later.
            errors.BudgetError: the budget does not reach.
        """
        progress = on_progress or _unheard
        if self._teacher is not None and not task_id:
            raise errors.InvalidInputError("a teacher is asked for a task_id, whose budget pays")
        repo = (
            what
            if isinstance(what, repository.Repository)
            else await asyncio.to_thread(repository.Repository.open, what)
        )
        read = await self._read(repo, progress)
        check = checks.Checks(read.definitions, scrub, parsing.parses)
        await progress(_SEARCHED, "making lessons")
        made = await asyncio.to_thread(self._offline, read, check)
        await progress(_MADE, f"{len(made.kept):,} lessons made")
        taught = await self._taught(task_id, read, progress)
        await progress(_TAUGHT, "checking that nothing held out is given away")
        return await asyncio.to_thread(self._finished, repo, read, check, made, taught)

    async def _read(
        self, repo: repository.Repository, progress: distillation.ProgressCallback
    ) -> _Read:
        told = _Told(progress)
        found = await asyncio.to_thread(extraction.extract, repo, self._settings, told.files)
        await progress(_READ, f"{len(found.chunks):,} definitions found; searching the history")
        kept, others = await asyncio.to_thread(
            committed.parted,
            repo.root,
            found.commit,
            found.chunks,
            self._settings.most_file_kb * 1024,
        )
        if not kept:
            raise errors.NotFoundError(
                f"{repo.root}: no definition in {found.files} files can be taught; "
                f"{len(found.skipped)} files were left out ({_why(found)}), and {len(others)} "
                "definitions are not committed yet"
            )
        pairs = await asyncio.to_thread(
            history.pairs, repo.root, found.commit, self._settings.history_commits, kept
        )
        definitions = {(chunk.path, chunk.symbol): chunk for chunk in kept}
        return _Read(found, definitions, len(others), pairs)

    def _offline(self, read: _Read, check: checks.Checks) -> verdicts.Sifted:
        """Lessons of the most useful definitions, until there are enough."""
        maker = offline.Offline(read.definitions, read.pairs, read.found.commit)
        kept, rejected = list[samples.Sample](), list[verdicts.Rejected]()
        for chunk in read.definitions.values():
            checked = check.sift(maker.lessons(chunk))
            kept += checked.kept
            rejected += checked.rejected
            if len(kept) >= _SPARE * self._settings.most_samples:
                break
        return verdicts.Sifted(tuple(kept), tuple(rejected))

    async def _taught(
        self, task_id: str, read: _Read, progress: distillation.ProgressCallback
    ) -> teaching.Taught:
        if self._teacher is None:
            return teaching.Taught()
        name = self._teacher.name

        async def asking(done: int, of: int) -> None:
            await progress(
                _MADE + (_TAUGHT - _MADE) * done / of, f"asking {name}: {done + 1} of {of}"
            )

        chosen = list(
            itertools.islice(read.definitions.values(), self._settings.teacher_definitions)
        )
        return await teaching.Teaching(self._teacher, self._journal, scrub).teach(
            task_id, read.found.commit, chosen, asking
        )

    def _finished(
        self,
        repo: repository.Repository,
        read: _Read,
        check: checks.Checks,
        made: verdicts.Sifted,
        taught: teaching.Taught,
    ) -> Generated:
        share = self._settings.held_out_share
        checked = check.sift(taught.drafts)
        # The teacher's go first: they were paid for.
        new = repeats.sift(_in_order((*checked.kept, *made.kept), read.definitions))
        marked = holding_out.marked(new.kept, share)
        clean = holding_out.clean(marked, read.definitions.values(), share)
        most = self._settings.most_samples
        surplus = tuple(
            verdicts.Rejected(one, verdicts.Reason.SURPLUS, f"the dataset has {most} samples")
            for one in clean.kept[most:]
        )
        rejected = (
            *made.rejected, *checked.rejected, *new.rejected, *clean.rejected, *surplus
        )  # fmt: skip
        chosen = clean.kept[:most]
        if not chosen:
            raise errors.NotFoundError(
                f"{repo.root}: no lesson of {len(read.definitions)} definitions is fit to be "
                f"taught; rejected: {verdicts.counts(rejected)}"
            )
        card = dataset_card.made_of(
            repo.name, read.found, read.uncommitted, chosen, rejected, share
        )
        card = dataclasses.replace(
            card, asked=taught.asked, withheld=taught.withheld, unanswered=taught.failed
        )
        return Generated(chosen, card, Report(rejected, read.found, taught))


def _why(found: extraction.Extraction) -> str:
    reasons = collections.Counter(one.reason for one in found.skipped).most_common(_MOST_REASONS)
    return ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"


@functools.lru_cache(maxsize=1024)
def scrub(text: str, path: str) -> str:
    """The text without secrets, see `checks.Scrub`."""
    return secrets.clean(text, languages.of_path(path))[0]


def _in_order(
    made: Iterable[samples.Sample], definitions: Iterable[tuple[str, str]]
) -> list[samples.Sample]:
    """The samples of the most useful definition first."""
    by_definition: dict[tuple[str, str], list[samples.Sample]] = collections.defaultdict(list)
    for one in made:
        by_definition[(one.path, one.symbol)].append(one)
    return [one for name in definitions for one in by_definition.get(name, ())]


class _Told:
    """Tells of files from the thread that reads them."""

    def __init__(self, progress: distillation.ProgressCallback) -> None:
        self._progress, self._loop = progress, asyncio.get_running_loop()
        self._percent = -1

    def files(self, done: int, of: int) -> None:
        percent = 100 * done // max(1, of)
        if percent != self._percent:
            self._percent = percent
            asyncio.run_coroutine_threadsafe(
                self._say(_READ * percent / 100, f"reading file {done:,} of {of:,}"), self._loop
            ).result()

    async def _say(self, share: float, detail: str) -> None:
        await self._progress(share, detail)


async def _unheard(share: float, detail: str) -> None:
    """Nobody wants to know."""
