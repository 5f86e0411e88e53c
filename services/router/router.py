"""`LoRARouter`: which card fits a question, and how sure it is that any does.

The heart of the service: ties the stock of active cards to one calibrated model, which is replaced
as a whole. Knows nothing about gRPC, the card store, what follows a doubt, or how many cards are
searched.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

import numpy as np
import structlog

from services.router import (
    admission,
    calibration,
    decision,
    explanation,
    fitting,
    practice,
    profile,
    rehearsal,
    reliability,
    space,
    stock,
    words,
)
from services.router import index as indexes
from shared import errors
from shared.cards import manifest as manifests

_CARDS_IN_ONE_STEP = 1_000
_REFITTED_BELOW = 3
"""A rehearsal calibrates anew among fewer cards; among more, one more changes little."""
_EXPLAINED_AGAINST = 2
"""Cards that an explanation compares at least: the first and the one behind it."""
_UNFITTED = (np.linalg.LinAlgError, FloatingPointError, ValueError)
EmbedQuery = Callable[[str], Awaitable[profile.Vectors]]
_log = structlog.get_logger(__name__)


class LoRARouter:
    """The active cards, one version of each name."""

    def __init__(
        self,
        embed_query: EmbedQuery,
        embed: practice.Embed,
        weigher: words.Words,
        ground: practice.Practice,
        threshold: float,
        exact_cards: int = stock.EXACT_CARDS,
    ) -> None:
        """Starts without cards, calibrated by practice alone.

        Args:
            embed_query: the vector of one question, soon.
            embed: the vectors of a card's examples.
            weigher: splits texts into weighed words.
            ground: the practice that every calibration includes.
            threshold: the confidence below which a decision is a dissonance, where a caller does
                not say.
            exact_cards: of more cards only some are compared with a question.
        """
        self._embed_query = embed_query
        self._embed = embed
        self._words = weigher
        self._ground = ground
        self._threshold = threshold
        self._dimension = ground.sums.means_C_D.shape[1]
        self._stock = stock.Stock(weigher, space.fit(ground.sums), exact_cards)
        self._fitted = fitting.fitted_to(ground.rows)
        self._changing = asyncio.Lock()
        self._calibrated: indexes.Index | None = self._stock.index
        self._calibrating: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._stock)

    @property
    def cards(self) -> tuple[str, ...]:
        """`name@digest` of every active card, in order; a long walk where there are many."""
        return self.first_cards(len(self))

    @property
    def stock(self) -> stock.Stock:
        """The cards themselves, for whoever measures how they are found."""
        return self._stock

    def first_cards(self, most: int, hidden: Collection[str] = ()) -> tuple[str, ...]:
        """`name@digest` of so many active cards, in order, without some."""
        found = map(self._stock.find, self._stock.names())
        seen = (f.identity for f in found if f is not None and f.identity not in hidden)
        return tuple(sorted(itertools.islice(seen, most)))

    def is_active(self, name: str, digest: str) -> bool:
        """Whether this is the version of its name that is routable."""
        found = self._stock.find(name)
        return found is not None and found.identity == manifests.card_identity(name, digest)

    async def register_card(self, card: profile.Card) -> None:
        """Makes a card routable; it takes the place of any other version of its name at once."""
        await self.register_cards([card])

    async def register_cards(self, cards: Iterable[profile.Card], virtual: bool = False) -> None:
        """The same for many cards, a thousand in one step; of several versions the last counts.

        Args:
            cards: to register.
            virtual: as `register_virtual_candidate` does it.

        Raises:
            errors.InvalidInputError: a card has no example.
            errors.InternalError: the embedder failed at a card. Either way the others are routable.
        """
        left = iter({card.name: card for card in cards}.values())
        failed: errors.SkillmeshError | None = None
        while some := list(itertools.islice(left, _CARDS_IN_ONE_STEP)):
            async with self._changing:
                try:
                    await self._add(some, virtual)
                except (errors.InvalidInputError, errors.InternalError) as error:
                    failed = failed or error
        if failed is not None:
            raise failed

    async def register_virtual_candidate(
        self,
        name: str,
        digest: str,
        description: str,
        domain: str = "",
        examples: Sequence[str] = (),
        statements: Sequence[str] = (),
    ) -> None:
        """Makes a card routable that is not here yet: a node fetches it when it is first chosen.

        Where a card of that very identity is registered already, nothing changes.

        Args:
            name: of the card.
            digest: of the card.
            description: stands in for examples where there are none.
            domain: of the card.
            examples: questions, where its catalogue tells them.
            statements: what the card says, where that is known.

        Raises:
            errors.InvalidInputError: there are neither examples nor a description.
        """
        told = tuple(examples) or tuple(filter(None, (description.strip(),)))
        if not told:
            raise errors.InvalidInputError(
                f"virtual candidate {name!r} has no description; there is nothing to compare with"
            )
        card = profile.Card(
            name, digest, domain, description, told, tuple(statements), stand_in=not examples
        )
        await self.register_cards([card], virtual=True)

    async def unregister_card(self, name: str) -> None:
        """Forgets whatever version of a name is active; an unknown name is fine."""
        async with self._changing:
            await self._forget([name])

    async def unregister_version(self, name: str, digest: str) -> None:
        """Forgets one version of a name, if it is the active one."""
        async with self._changing:
            # Looked up here: another version may have been on its way in.
            if self.is_active(name, digest):
                await self._forget([name])

    async def retain(self, names: Collection[str]) -> None:
        """Forgets every card that has none of these names."""
        async with self._changing:
            gone = await asyncio.to_thread(lambda: set(self._stock.names()).difference(names))
            await self._forget(gone)

    async def select(
        self,
        query: str,
        top_k: int = 1,
        threshold: float | None = None,
        hidden: profile.Hidden = profile.nothing,
    ) -> decision.Decision:
        """Ranks the cards for a question.

        Args:
            query: the question, up to 8,000 characters.
            top_k: how many candidates to return, 1 to 1,000.
            threshold: 0 to 1; by default the configured one.
            hidden: tells the cards that are none to the asker.

        Raises:
            errors.InvalidInputError: names the argument that is out of range.
        """
        return (await self._decided(query, top_k, threshold, hidden))[0]

    async def explain(
        self,
        query: str,
        top_k: int = 1,
        threshold: float | None = None,
        hidden: profile.Hidden = profile.nothing,
    ) -> explanation.Explanation:
        """Why `select` decides a question as it does; arguments and errors are the same.

        `top_k` cards are taken apart.
        """
        decided, seen = await self._decided(query, top_k, threshold, hidden, _EXPLAINED_AGAINST)
        ranked = [(found.card, found.probability) for found in decided.candidates]
        # A thousand cards take a third of a second, which the questions of others must not wait.
        return await asyncio.to_thread(
            explanation.explain, seen, ranked, decided.confidence, decided.threshold, top_k
        )

    async def rehearse(
        self, card: profile.Card, asked: Sequence[str], threshold: float | None = None
    ) -> rehearsal.Rehearsal:
        """What would become of questions were a card routable; nothing is changed.

        Args:
            card: in the place of any other version of its name.
            asked: questions, 2,000 at most.
            threshold: 0 to 1; by default the configured one.

        Raises:
            errors.InvalidInputError: the card has no example, or names what else is out of range.
            errors.InternalError: the embedder failed.
        """
        limit = self._threshold if threshold is None else threshold
        for text in asked:
            admission.check_request(text, 1, limit)
        admitted = await admission.embedded([card], self._embed, self._dimension)
        admitted.check()
        questions = []
        for text, vector in zip(asked, await self._embed(asked), strict=True):
            unit = admission.question_vector(vector, self._dimension)
            questions.append(profile.Question(text, unit, self._words.of(text)))
        # Cards that came just now are not weighed yet; then all are of one moment.
        await self.settled()
        index, shortlist, fit = self._stock.index, self._stock.shortlist, None
        if len(index) < _REFITTED_BELOW:
            fit = self._calibrated_anew
        stage = rehearsal.Stage(index, shortlist, self._fitted.model, limit, fit)

        def work() -> rehearsal.Rehearsal:
            (candidate,) = self._profiles(admitted.cards)
            return rehearsal.rehearse(candidate, questions, stage)

        return await asyncio.to_thread(work)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (0 to 1), out of sample; NaN without cards."""
        return self._fitted.reliability.error

    @property
    def calibration_rows(self) -> int:
        """Questions that the calibration error stands on."""
        return self._fitted.reliability.rows

    @property
    def calibration_bins(self) -> tuple[reliability.Bin, ...]:
        """What the calibration error is made of; empty without cards."""
        return self._fitted.reliability.bins

    @property
    def threshold(self) -> float:
        """Confidence below which a question is a gap, where it does not say otherwise."""
        return self._threshold

    async def settled(self) -> None:
        """Returns once the calibration reflects all cards registered so far."""
        while self._calibrating is not None:
            await asyncio.shield(self._calibrating)

    async def close(self) -> None:
        """Ends a calibration under way."""
        if self._calibrating is not None:
            self._calibrating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._calibrating

    async def _forget(self, names: Collection[str]) -> None:
        await self._stock.remove(names)
        self._calibrate_soon()

    async def _decided(
        self,
        query: str,
        top_k: int,
        threshold: float | None,
        hidden: profile.Hidden,
        fewest: int = 1,
    ) -> tuple[decision.Decision, explanation.Seen]:
        """The decision, with that many candidates where there are, and what it was made from."""
        limit = self._threshold if threshold is None else threshold
        admission.check_request(query, top_k, limit)
        question, shown = await self._question(query), max(top_k, fewest)
        # Both are of one moment: one consistent view for the whole answer.
        fitted, near = self._fitted, self._stock.near(question, shown, hidden)
        index = await near
        evidence, model = index.search(question), fitted.model
        decided = decision.decide(question, index, evidence, model, shown, limit, hidden())
        return decided, explanation.Seen(question, index, evidence, model, fitted.usual, len(self))

    async def _question(self, query: str) -> profile.Question:
        vector = admission.question_vector(await self._embed_query(query), self._dimension)
        return profile.Question(query, vector, self._words.of(query))

    async def _add(self, cards: Iterable[profile.Card], virtual: bool) -> None:
        # Looking up a thousand cards on the shelf reads as many rows.
        new = await asyncio.to_thread(self._unknown, cards, virtual)
        if not new:
            return
        admitted = await admission.embedded(new, self._embed, self._dimension)
        if admitted.cards:
            made = await asyncio.to_thread(self._profiles, admitted.cards)
            await self._stock.add(made, virtual)
            self._calibrate_soon()
        admitted.check()

    def _unknown(self, cards: Iterable[profile.Card], virtual: bool) -> list[profile.Card]:
        """Those that are not routable yet, or only as virtual ones."""
        new = []
        for card in cards:
            found = self._stock.find(card.name)
            is_known = found is not None and found.identity == card.identity
            if not is_known or (found is not None and found.virtual and not virtual):
                new.append(card)
        return new

    def _profiles(
        self, embedded: Iterable[tuple[profile.Card, profile.Vectors]]
    ) -> list[profile.Profile]:
        made = []
        for card, vectors_T_D in embedded:
            vectors = iter(vectors_T_D)
            examples, statements = (
                [
                    profile.Question(text, profile.unit(next(vectors)), self._words.of(text))
                    for text in told
                ]
                for told in (card.examples, card.statements)
            )
            made.append(profile.build(card, examples, statements))
        return made

    def _calibrate_soon(self) -> None:
        if self._calibrating is None:
            self._calibrating = asyncio.create_task(self._calibrate())

    async def _calibrate(self) -> None:
        """Fits until the newest set of cards is reflected, off the event loop."""
        try:
            while self._calibrated is not self._stock.index:
                # Both are of one moment: cards may move to the shelf meanwhile.
                index, shortlist = self._stock.index, self._stock.shortlist
                try:
                    fitted, model = await asyncio.to_thread(
                        fitting.among, self._ground, index, shortlist
                    )
                except _UNFITTED:
                    # The former calibration still holds; the next change tries again.
                    _log.exception("calibration failed", cards=len(index))
                    self._calibrated = index
                    continue
                learned = index
                while self._stock.index is not index:
                    # Cards came or went meanwhile: what was learned serves until they are fitted.
                    index = self._stock.index
                    fitted = await asyncio.to_thread(index.within, fitted.space)
                self._stock.index, self._fitted = fitted, model
                self._calibrated = fitted if index is learned else None
        finally:
            self._calibrating = None

    def _calibrated_anew(self, index: indexes.Index) -> tuple[indexes.Index, calibration.Model]:
        try:
            fitted, model = fitting.among(self._ground, index, None)
        except _UNFITTED:
            _log.exception("calibration for a rehearsal failed", cards=len(index))
            return index, self._fitted.model
        return fitted, model.model
