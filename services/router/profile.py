"""A card's routing profile as vectors and words: what a question is compared with.

Pure data: built from example questions and their vectors, knows nothing about embedding them, about
other cards or about probabilities.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from services.router import lexicon, reading
from shared import questions
from shared.cards import manifest as manifests

Vectors = npt.NDArray[np.float32]
Hidden = Callable[[], Collection[str]]
"""Tells the cards (`name@digest`) that are none to an asker, as of now: others may come while a
question is embedded."""
_LEAST_NORM = 1e-6


def nothing() -> Collection[str]:
    """Hides no card; a `Hidden`."""
    return ()


_LEAST_NORM = 1e-6


@dataclasses.dataclass(frozen=True)
class Card:
    """What the router knows about a card before anything is embedded."""

    name: str
    digest: str
    domain: str
    description: str
    examples: tuple[str, ...]
    """Example questions, or what stands in for them."""
    statements: tuple[str, ...] = ()
    """What the card says; empty where that is not known."""
    answered_by: tuple[int, ...] = ()
    """Of each example the number of its answer; empty where that is not known."""
    stand_in: bool = False
    """Whether the description stands in for examples that nobody knows."""

    @property
    def identity(self) -> str:
        """`name@digest`."""
        return manifests.card_identity(self.name, self.digest)


@dataclasses.dataclass(frozen=True)
class Question:
    """A text as the index sees it."""

    text: str
    vector: Vectors
    """(dimension,), unit length or all zero."""
    words: Mapping[str, float]
    """Words in their basic form with their weights."""

    @functools.cached_property
    def terms(self) -> collections.Counter[str]:
        """Words and pairs of neighbours, as often as they occur."""
        return lexicon.terms(self.text)

    @functools.cached_property
    def folded(self) -> str:
        """The same for every spelling of the question."""
        return questions.fold(self.text)


@dataclasses.dataclass(frozen=True)
class Profile:
    """A card's examples with what is derived from all of them together."""

    card: Card
    examples: tuple[Question, ...]
    statements: tuple[Question, ...]
    """What the card says, seen like a question."""
    centroid: Vectors
    """(dimension,), unit length or all zero."""
    spread: float
    """Root mean square distance of the examples from the centroid (0 to 2)."""
    salience: Mapping[str, float]
    """How much each word is what the card is about (0 to 1): its weight times the share of the
    examples that contain it, over the highest such product."""

    @functools.cached_property
    def told(self) -> lexicon.Told:
        """The terms of the examples."""
        return lexicon.Told(tuple(example.terms for example in self.examples))

    def read(self, question: Question) -> str:
        """The example that most probably asks the same: of the likeliest fact the nearest one.

        Empty where the card does not tell which of its examples ask for the same.
        """
        if not self.card.answered_by:
            return ""
        fact = self._reader.fact(question.vector)
        own = [e for e, f in zip(self.examples, self._facts, strict=True) if f == fact]
        return max(own, key=lambda example: float(example.vector @ question.vector)).text

    @property
    def _facts(self) -> list[int]:
        """Of each example the fact that it asks for."""
        answer_of = dict(zip(self.card.examples, self.card.answered_by, strict=True))
        return [answer_of[example.text] for example in self.examples]

    @functools.cached_property
    def _reader(self) -> reading.Reader:
        return reading.Reader(np.stack([e.vector for e in self.examples]), self._facts)

    @property
    def identity(self) -> str:
        """`name@digest` of the card."""
        return self.card.identity


def from_manifest(record_name: str, digest: str, manifest: manifests.Manifest) -> Card:
    """The card that a manifest describes; without examples its description stands in for them."""
    routing = manifest.routing or manifests.RoutingProfile()
    answered_by = routing.answered_by or (None,) * len(routing.examples)
    answer_of = {
        text.strip(): answer
        for text, answer in zip(routing.examples, answered_by, strict=True)
        if text.strip()
    }
    told = tuple(answer_of)
    # The description says what the card is about, in words that its answers may not have.
    statements = (*routing.statements, manifest.description)
    said = tuple(dict.fromkeys(text.strip() for text in statements if text.strip()))
    stand_in = manifest.description.strip() or record_name.replace("-", " ")
    return Card(
        record_name,
        digest,
        manifest.domain,
        manifest.description,
        told or (stand_in,),
        said,
        tuple(answer for answer in answer_of.values() if answer is not None),
        stand_in=not told,
    )


def build(card: Card, examples: Sequence[Question], statements: Sequence[Question] = ()) -> Profile:
    """Derives a profile from embedded examples.

    Args:
        card: whose profile it is.
        examples: at least one.
        statements: what the card says, if that is known.
    """
    centroid, spread = examples[0].vector, 0.0
    if len(examples) > 1:
        vectors_E_D = np.stack([example.vector for example in examples])
        centroid = unit(vectors_E_D.mean(axis=0))
        distances = np.linalg.norm(vectors_E_D - centroid, axis=1)
        spread = float(np.sqrt(np.mean(distances**2)))
    return Profile(
        card=card,
        examples=tuple(examples),
        statements=tuple(statements),
        centroid=centroid,
        spread=spread,
        salience=_salience(examples),
    )


def unit(vector: Vectors) -> Vectors:
    """The vector at unit length; one without direction becomes all zero."""
    clean = np.nan_to_num(np.asarray(vector, dtype=np.float32), posinf=0.0, neginf=0.0)
    norm = float(np.linalg.norm(clean))
    return clean / np.float32(norm) if norm > _LEAST_NORM else np.zeros_like(clean)


def _salience(examples: Sequence[Question]) -> dict[str, float]:
    counts = collections.Counter(word for example in examples for word in example.words)
    weights: dict[str, float] = collections.defaultdict(float)
    for example in examples:
        for word, weight in example.words.items():
            weights[word] = max(weights[word], weight)  # Once written as a name it is one.
    products = {word: weights[word] * count / len(examples) for word, count in counts.items()}
    highest = max(products.values(), default=0.0)
    return {word: p / highest if highest > 0 else 0.0 for word, p in products.items()}
