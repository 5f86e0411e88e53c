"""`Sieve`: all checks that pairs pass before anyone trains on them, one after the other.

Cheap ones first, and what a pair's own passage tells before what other pairs tell: of two that
contradict each other, the one that its passage does not support is gone by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set

from services.distiller import filters, vectors
from services.distiller.providers import base
from services.distiller.quality import (
    agreement,
    judge,
    language,
    mixing,
    placement,
    privacy,
    support,
    verdict,
)
from shared import settings as config
from shared.flight import datasets

_Check = Callable[[Sequence[datasets.QAPair]], verdict.Sifted]


class Sieve:
    """The checks, as the settings want them."""

    def __init__(self, settings: config.Distiller, embed: vectors.AsyncEmbed | None) -> None:
        """Takes what it works with.

        Args:
            settings: languages, judge and thresholds.
            embed: the project's embedder; without it meanings are not compared.
        """
        self._settings = settings
        self._embed = embed

    async def sift(
        self,
        pairs: Iterable[datasets.QAPair],
        queries: Sequence[str],
        keys: Set[str],
        ask: judge.Ask,
        teacher: base.CloudProvider,
    ) -> verdict.Sifted:
        """Checks what a teacher said.

        Args:
            pairs: as they came.
            queries: the users' queries; they say which language is expected.
            keys: of the queries, see `wording.key`.
            ask: asks the teacher again, for the judge.
            teacher: who said it.

        Returns:
            Pairs without wordings in common, in the teacher's order, and the rejected ones.
        """
        languages = self._settings.languages or language.spoken(queries)
        checked = _Checked(pairs)
        checked.apply(filters.valid)
        checked.apply(privacy.public)
        checked.apply(lambda some: language.expected(some, languages))
        checked.kept = tuple(filters.distinct(pair, keys) for pair in filters.merged(checked.kept))
        checked.apply(support.supported)
        if self._embed is not None and checked.kept:
            checked.add(await placement.placed(checked.kept, self._embed))
            vector_of = await self._vectors(checked.kept)
            share = self._settings.most_wrong_share
            # They compare all with all: seconds in which nobody else would be served.
            await checked.apply_aside(lambda some: agreement.unrepeated(some, vector_of))
            await checked.apply_aside(lambda some: agreement.consistent(some, vector_of))
            await checked.apply_aside(lambda some: mixing.unmixed(some, vector_of, share))
        checked.apply(lambda some: filters.unambiguous(some, keys))
        if self._settings.judge == "teacher":
            threshold, size = self._settings.judge_threshold, teacher.queries_a_call
            checked.add(await judge.agreed(checked.kept, ask, size, threshold, teacher.repeats))
        return verdict.Sifted(checked.kept, tuple(checked.rejected))

    async def _vectors(self, pairs: Sequence[datasets.QAPair]) -> agreement.Lookup:
        assert self._embed is not None
        texts = agreement.texts(pairs)
        return dict(zip(texts, await self._embed(texts), strict=True)) if texts else {}


class _Checked:
    """What is left so far."""

    def __init__(self, pairs: Iterable[datasets.QAPair]) -> None:
        self.kept = tuple(pairs)
        self.rejected: list[verdict.Rejected] = []

    def apply(self, check: _Check) -> None:
        self.add(check(self.kept))

    async def apply_aside(self, check: _Check) -> None:
        """As `apply`, in a thread."""
        self.add(await asyncio.to_thread(check, self.kept))

    def add(self, sifted: verdict.Sifted) -> None:
        self.kept = sifted.kept
        self.rejected += sifted.rejected
