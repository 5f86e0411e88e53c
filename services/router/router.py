"""`LoRARouter`: which card fits a question, and how sure it is that any does.

The heart of the service: holds the active cards in one index with one calibrated model, both
replaced as wholes. Knows nothing about gRPC, the card store or what follows a doubt.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Sequence

import numpy as np
import structlog

from services.router import (
    admission,
    calibration,
    explanation,
    fitting,
    observation,
    practice,
    profile,
    space,
    words,
)
from services.router import index as indexes
from shared import errors
from shared.cards import manifest as manifests

EmbedQuery = Callable[[str], Awaitable[profile.Vectors]]
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One card that may fit."""

    card: str
    """`name@digest`."""
    probability: float
    """Calibrated; those of all cards and the probability of none sum to 1."""
    similarity: float
    """Cosine to the nearest example question."""
    nearest_example: str
    """Empty for a card that is known by its description alone."""


@dataclasses.dataclass(frozen=True)
class Decision:
    """The answer to one question."""

    query: str
    candidates: tuple[Candidate, ...]
    """Best first."""
    none_probability: float
    confidence: float
    """1 - none_probability; from the best evidence, so that twins do not split it."""
    threshold: float
    dissonance: bool
    """Whether the confidence lies below the threshold."""


class LoRARouter:
    """The active cards, one version of each name."""

    def __init__(
        self,
        embed_query: EmbedQuery,
        embed: practice.Embed,
        weigher: words.Words,
        ground: practice.Practice,
        threshold: float,
    ) -> None:
        """Starts without cards, calibrated by practice alone.

        Args:
            embed_query: the vector of one question, soon.
            embed: the vectors of a card's examples.
            weigher: splits texts into weighed words.
            ground: the practice that every calibration includes.
            threshold: the confidence below which a decision is a dissonance, where a caller does
                not say.
        """
        self._embed_query = embed_query
        self._embed = embed
        self._words = weigher
        self._ground = ground
        self._threshold = threshold
        self._dimension = ground.sums.means_C_D.shape[1]
        self._index = indexes.Index(space=space.fit(ground.sums))
        self._fitted = fitting.fitted_to(ground.rows)
        self._virtual: frozenset[str] = frozenset()
        self._changing = asyncio.Lock()
        self._calibrated = self._index
        self._calibrating: asyncio.Task[None] | None = None

    @property
    def cards(self) -> tuple[str, ...]:
        """`name@digest` of every active card, in order."""
        return tuple(found.identity for found in self._index.profiles)

    @property
    def names(self) -> frozenset[str]:
        """Names of the cards that are not virtual."""
        return self._names(virtual=False)

    @property
    def virtual_names(self) -> frozenset[str]:
        """Names of those that are."""
        return self._names(virtual=True)

    async def register_card(self, card: profile.Card) -> None:
        """Makes a card routable; it takes the place of any other version of its name at once."""
        await self.register_cards([card])

    async def register_cards(self, cards: Iterable[profile.Card]) -> None:
        """The same for many cards in one step; of several versions of a name the last counts.

        Raises:
            errors.InvalidInputError: a card has no example.
            errors.InternalError: the embedder failed at a card. Either way the others are routable.
        """
        async with self._changing:
            await self._add({card.name: card for card in cards}, virtual=False)

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
        async with self._changing:
            await self._add({name: card}, virtual=True)

    async def unregister_card(self, name: str) -> None:
        """Forgets whatever version of a name is active; an unknown name is fine."""
        async with self._changing:
            gone = [p.identity for p in self._index.profiles if p.card.name == name]
            if gone:
                self._replace(self._index.changed(remove=gone), self._virtual - set(gone))

    async def unregister_version(self, name: str, digest: str) -> None:
        """Forgets one version of a name, if it is the active one."""
        if manifests.card_identity(name, digest) in self.cards:
            await self.unregister_card(name)

    async def select(self, query: str, top_k: int = 1, threshold: float | None = None) -> Decision:
        """Ranks the cards for a question.

        Args:
            query: the question, up to 8,000 characters.
            top_k: how many candidates to return, 1 to 1,000.
            threshold: 0 to 1; by default the configured one.

        Raises:
            errors.InvalidInputError: names the argument that is out of range.
        """
        limit = self._threshold if threshold is None else threshold
        admission.check_request(query, top_k, limit)
        question = await self._question(query)
        # Both are read after the only wait: one consistent view for the whole answer.
        index, fitted = self._index, self._fitted
        return _decided(question, index, index.search(question), fitted.model, top_k, limit)

    async def explain(
        self, query: str, top_k: int = 1, threshold: float | None = None
    ) -> explanation.Explanation:
        """Why `select` decides a question as it does; arguments and errors are the same.

        `top_k` cards are taken apart.
        """
        limit = self._threshold if threshold is None else threshold
        admission.check_request(query, top_k, limit)
        question = await self._question(query)
        index, fitted = self._index, self._fitted
        evidence = index.search(question)
        decision = _decided(question, index, evidence, fitted.model, max(top_k, 2), limit)
        ranked = [(found.card, found.probability) for found in decision.candidates]
        seen = explanation.Seen(question, index, evidence, fitted.model, fitted.usual, len(index))
        return explanation.explain(seen, ranked, decision.confidence, limit, top_k)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (0 to 1), out of sample; NaN without cards."""
        return self._fitted.reliability.error

    @property
    def calibration_rows(self) -> int:
        """Questions that the calibration error stands on."""
        return self._fitted.reliability.rows

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

    async def _question(self, query: str) -> profile.Question:
        vector = admission.question_vector(await self._embed_query(query), self._dimension)
        return profile.Question(query, vector, self._words.of(query))

    def _names(self, virtual: bool) -> frozenset[str]:
        return frozenset(
            p.card.name for p in self._index.profiles if (p.identity in self._virtual) is virtual
        )

    async def _add(self, cards: dict[str, profile.Card], virtual: bool) -> None:
        active = {p.identity: p for p in self._index.profiles}
        new = {
            name: card
            for name, card in cards.items()
            if card.identity not in active or (not virtual and card.identity in self._virtual)
        }
        if not new:
            return
        admitted = await admission.embedded(new.values(), self._embed, self._dimension)
        made = []
        for card, vectors_T_D in admitted.cards:
            vectors = iter(vectors_T_D)
            examples, statements = (
                [
                    profile.Question(text, profile.unit(next(vectors)), self._words.of(text))
                    for text in told
                ]
                for told in (card.examples, card.statements)
            )
            made.append(profile.build(card, examples, statements))
        names = {p.card.name for p in made}
        gone = {identity for identity, p in active.items() if p.card.name in names}
        identities = {p.identity for p in made}
        kept = self._virtual - gone
        if made:
            self._replace(
                self._index.changed(add=made, remove=gone), kept | identities if virtual else kept
            )
        admitted.check()

    def _replace(self, index: indexes.Index, virtual: frozenset[str]) -> None:
        self._index, self._virtual = index, virtual
        if self._calibrating is None:
            self._calibrating = asyncio.create_task(self._calibrate())

    async def _calibrate(self) -> None:
        """Fits until the newest set of cards is reflected, off the event loop."""
        try:
            while self._calibrated is not self._index:
                index = self._index
                try:
                    fitted, model = await asyncio.to_thread(self._fit, index)
                except (np.linalg.LinAlgError, FloatingPointError, ValueError):
                    # The former calibration still holds; the next change tries again.
                    _log.exception("calibration failed", cards=len(index))
                    self._calibrated = index
                    continue
                while self._index is not index:
                    # Cards came or went meanwhile: what was learned holds for these, too.
                    index = self._index
                    fitted = await asyncio.to_thread(indexes.Index, index.profiles, fitted.space)
                self._index, self._fitted, self._calibrated = fitted, model, fitted
        finally:
            self._calibrating = None

    def _fit(self, index: indexes.Index) -> tuple[indexes.Index, fitting.Fitted]:
        """The same cards in a space of their own, and the calibration there."""
        observed = observation.observe(index.profiles, self._indexed, self._ground.unrelated)
        return self._indexed(index.profiles), fitting.fitted_to(self._ground.rows, observed)

    def _indexed(self, cards: Sequence[profile.Profile]) -> indexes.Index:
        groups = [np.stack([e.vector for e in p.examples]) for p in cards]
        own = space.sums(groups) if groups else None
        return indexes.Index(cards, space.fit(self._ground.sums, own))


def _decided(
    question: profile.Question,
    index: indexes.Index,
    evidence: indexes.Evidence,
    model: calibration.Model,
    top_k: int,
    threshold: float,
) -> Decision:
    candidates, confidence = _share(index, evidence, model, top_k)
    if not question.words:  # "?!" asks for nothing that a card could say.
        candidates, confidence = (), 0.0
    return Decision(
        query=question.text,
        candidates=candidates,
        none_probability=1.0 - confidence,
        confidence=confidence,
        threshold=threshold,
        dissonance=confidence < threshold,
    )


def _share(
    index: indexes.Index, evidence: indexes.Evidence, model: calibration.Model, top_k: int
) -> tuple[tuple[Candidate, ...], float]:
    """The best candidates and the confidence that their probabilities share."""
    if not len(index):
        return (), 0.0
    ranks_C = model.ranks(evidence)
    shares_C = np.exp(ranks_C - ranks_C.max())
    best = np.argsort(-ranks_C, kind="stable")[:top_k]
    confidence = float(calibration.sigmoid(model.logits(evidence)[best[0]]))
    probabilities_C = confidence * shares_C / shares_C.sum()
    candidates = []
    for at in best:
        found = index.profiles[at]
        nearest = found.examples[int(evidence.nearest_example[at])].text
        candidates.append(
            Candidate(
                card=found.identity,
                probability=float(probabilities_C[at]),
                similarity=float(evidence.nearest[at]),
                nearest_example="" if found.card.stand_in else nearest,
            )
        )
    return tuple(candidates), confidence
