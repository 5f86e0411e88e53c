"""Finds the passages of a document that answer a question.

A linear ranker over similarity features, its weights fitted on questions about Wikipedia passages
(SQuAD) by `python -m benchmarks.fit_ranking`; nothing in it is about any document in particular.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from services.distiller import vectors
from services.distiller.documents import reading, words

Matrix = npt.NDArray[np.float64]

FEATURES = (
    "text", "with_before", "unnamed", "in_context", "clause", "unnamed_clause", "overlap",
    "overlap_before", "fits", "fits_number", "pairs", "similar_before", "overlapped_before",
    "similar_before_pronoun", "overlapped_before_pronoun", "fits_and_overlaps",
)  # fmt: skip
WEIGHTS: Matrix = np.array(
    [1.51, 2.87, 2.00, 2.03, 0.62, 1.43, 4.81, 0.40, 1.21, 0.42, 0.60, 0.17, 0.40, 0.26, 0.58, 1.01]
)
_TITLE_WORD_WEIGHT = 0.2
"""Words of the title stand in most questions and tell passages apart least."""
_CLAUSE_BREAK = re.compile(r"[,;:()—–]| and | but | which | who | where | when ")
_PRONOUN = re.compile(
    r"^(?:it|its|he|she|they|his|her|their|this|that|these|those|the|here|there|both|each|one)\b",
    re.I,
)


@dataclasses.dataclass(frozen=True)
class Ranked:
    """A passage with the ranker's belief that it answers."""

    passage: reading.Passage
    probability: float
    """Over all passages of the document, they sum to 1."""


class IndexedDocument:
    """A document with the vectors of its passages."""

    def __init__(self, document: reading.Document, rows: dict[str, vectors.Vectors]) -> None:
        """Use `index`."""
        self.document = document
        self._rows = rows
        passages = document.passages
        self._stems = [words.stems(passage.text) for passage in passages]
        self._stems_before = [words.stems(passage.before) for passage in passages]
        self._title = words.stems(document.title)
        self._clause_owner = np.repeat(
            np.arange(len(passages)), [len(_clauses(passage.text)) for passage in passages]
        )
        counts: dict[str, int] = {}
        for one in self._stems:
            for stem in one:
                counts[stem] = counts.get(stem, 0) + 1
        self._counts = counts

    @classmethod
    async def index(cls, document: reading.Document, embed: vectors.AsyncEmbed) -> IndexedDocument:
        """Embeds all passages, several views of each."""
        texts = [passage.text for passage in document.passages]
        views = {
            "text": texts,
            "with_before": [f"{p.before} {p.text}".strip() for p in document.passages],
            "in_context": [p.in_context for p in document.passages],
            "unnamed": [unnamed(text, document.title) for text in texts],
            "clauses": [clause for text in texts for clause in _clauses(text)],
        }
        flat = await embed([text for view in views.values() for text in view])
        rows, at = {}, 0
        for name, view in views.items():
            rows[name] = flat[at : at + len(view)]
            at += len(view)
        return cls(document, rows)

    def similarity(self, question: vectors.Vectors) -> float:
        """How near the nearest passage is to a question's vector, -1 to 1."""
        return float((self._rows["in_context"] @ question).max())

    def features(
        self, question: str, vector: vectors.Vectors, vector_unnamed: vectors.Vectors
    ) -> Matrix:
        """One row a passage, one column a feature, shape (passages, len(FEATURES))."""
        passages, rows = self.document.passages, self._rows
        asked, kind = words.stems(question), words.wanted(question)
        text, unnamed_rows = rows["text"] @ vector, rows["unnamed"] @ vector_unnamed
        overlap = self._overlap(asked, self._stems)
        fits = np.array([words.offers(p.text, kind, asked) for p in passages], dtype=np.float64)
        fits *= kind is not words.Wanted.ANYTHING
        numeric = kind in (words.Wanted.NUMBER, words.Wanted.YEAR, words.Wanted.TIME)
        has_before = np.array([bool(p.before) for p in passages], dtype=np.float64)
        pronoun = has_before * [bool(_PRONOUN.match(p.text)) for p in passages]
        text_before = np.concatenate(([0.0], text[:-1]))
        overlap_above = np.concatenate(([0.0], overlap[:-1]))
        return np.stack(
            [
                text,
                rows["with_before"] @ vector,
                unnamed_rows,
                rows["in_context"] @ vector,
                self._best_clause(vector),
                self._best_clause(vector_unnamed),
                overlap,
                self._overlap(asked, self._stems_before),
                fits,
                fits * numeric,
                _shared_pairs(question, [p.text for p in passages]),
                text_before * has_before,
                overlap_above * has_before,
                text_before * pronoun,
                overlap_above * pronoun,
                fits * overlap,
            ],
            axis=1,
        )

    def rank(
        self, question: str, vector: vectors.Vectors, vector_unnamed: vectors.Vectors
    ) -> list[Ranked]:
        """All passages, the likeliest to answer first."""
        scores = self.features(question, vector, vector_unnamed) @ WEIGHTS
        chances = np.exp(scores - scores.max())
        chances /= chances.sum()
        order = np.argsort(-chances, kind="stable")
        return [Ranked(self.document.passages[at], float(chances[at])) for at in order]

    def _best_clause(self, vector: vectors.Vectors) -> Matrix:
        similarity = (self._rows["clauses"] @ vector).astype(np.float64)
        best = np.full(len(self.document.passages), -1.0)
        np.maximum.at(best, self._clause_owner, similarity)
        return best

    def _overlap(self, asked: set[str], texts: Sequence[set[str]]) -> Matrix:
        """Share of the question's words, weighted by rarity, that stand in each text."""
        weights = {stem: self._weight(stem) for stem in asked}
        total = sum(weights.values()) or 1.0
        return (
            np.array(
                [sum(weight for stem, weight in weights.items() if stem in text) for text in texts]
            )
            / total
        )

    def _weight(self, stem: str) -> float:
        rarity = math.log(1 + len(self._stems) / (0.5 + self._counts.get(stem, 0.5)))
        return rarity * (_TITLE_WORD_WEIGHT if stem in self._title else 1.0)


def unnamed(text: str, title: str) -> str:
    """A text in which the names that stand in the title became `it`.

    What the whole document speaks of would otherwise draw every question to its first sentence.
    """
    title_stems = words.stems(title)

    def replace(match: re.Match[str]) -> str:
        named = any(words.stem(word) in title_stems for word in words.content(match[0]))
        return "it " if named else match[0]

    name = r"(?:the )?(?:(?:[A-Z][\w'’-]*|of|&|on|the)(?:[ -](?=\w))?)+"
    return re.sub(r"\s+", " ", re.sub(name, replace, text)).strip()


def _clauses(text: str) -> list[str]:
    return [part for part in _CLAUSE_BREAK.split(text) if len(part.split()) >= 2] or [text]


def _shared_pairs(question: str, texts: Sequence[str]) -> Matrix:
    """Share of the question's neighbouring words that stand side by side in each text, too."""

    def pairs(text: str) -> set[tuple[str, str]]:
        found = words.content(text)
        return set(itertools.pairwise(found))

    asked = pairs(question)
    return np.array([len(asked & pairs(text)) / (1 + len(asked)) for text in texts])
