"""Questions composed of common words in frames: meanings that no question family covers.

A frame is one question in several wordings with slots for words. What comes out need not be
sensible: the teacher of meaning places it all the same, and the model learns what each word adds.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

_COMMON = 16_000
_VERBS_AS_NOUNS = 600
_ADJECTIVE_ENDINGS = (
    "al", "ous", "ive", "able", "ible", "ic", "ful", "less", "ish", "ary",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Verb:
    """A regular verb; frames name its forms, as in `{0.past}`."""

    base: str

    def __str__(self) -> str:
        """The base form."""
        return self.base

    @property
    def past(self) -> str:
        """Past tense and participle."""
        return f"{self.base.removesuffix('e')}ed"

    @property
    def gerund(self) -> str:
        """The form in -ing."""
        return f"{self.base.removesuffix('e')}ing"

    @property
    def third(self) -> str:
        """Third person singular."""
        return f"{self.base}s"


class Lexicon:
    """Words by kind, the commonest first, told apart by the forms that a vocabulary holds."""

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Takes whole words, the most frequent first."""
        words = [word for word in vocabulary if len(word) > 2]
        known, common = set(words), words[:_COMMON]
        verbs = [Verb(word) for word in common]
        verbs = [verb for verb in verbs if verb.past in known and verb.gerund in known]
        forms = {form for verb in verbs for form in (verb.base, verb.past, verb.gerund)}
        counted = [word for word in common if f"{word}s" in known]
        nouns = [
            word for word in counted if word not in forms and not word.endswith(("ed", "ing", "ly"))
        ]
        nouns += [verb.base for verb in verbs if verb.third in known][:_VERBS_AS_NOUNS]
        adjectives = [
            word
            for word in common
            if word not in forms and (f"{word}ly" in known or word.endswith(_ADJECTIVE_ENDINGS))
        ]
        self.kinds: dict[str, Sequence[str | Verb]] = {
            "noun": nouns,
            "plural": [f"{noun}s" for noun in nouns],
            "verb": verbs,
            "adjective": adjectives,
        }

    def draw(self, kind: str, rng: random.Random) -> str | Verb:
        """A word of the kind; common ones are likelier."""
        words = self.kinds[kind]
        return words[int(len(words) * rng.random() ** 1.5)]


FRAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("noun noun", (
        "What is the {0} of the {1} at {x}?",
        "{x}: {1} {0}?",
        "Which {0} does the {1} of {x} have?",
        "Tell me the {0} of {x}'s {1}.",
        "About the {1} at {x}: what is its {0}?",
        "I'd like to know the {1}'s {0} at {x}.",
    )),
    ("noun", (
        "What is the {0} of {x}?",
        "{x} has what {0}?",
        "Which {0} belongs to {x}?",
        "Tell me about the {0} of {x}.",
        "{x}'s {0}, what is it?",
        "What can you say about the {0} that {x} has?",
    )),
    ("adjective noun", (
        "What is the {0} {1} of {x}?",
        "Which {1} of {x} is {0}?",
        "{x}: which {0} {1}?",
        "Name the {0} {1} at {x}.",
        "What {1} is called {0} at {x}?",
    )),
    ("verb noun", (
        "Who {0.past} the {1} of {x}?",
        "By whom was the {1} of {x} {0.past}?",
        "Which person {0.past} {x}'s {1}?",
        "The {1} at {x} was {0.past} by whom?",
        "Name whoever {0.past} the {1} of {x}.",
    )),
    ("verb noun", (
        "When was the {1} of {x} {0.past}?",
        "In what year did someone {0} the {1} of {x}?",
        "On which date was {x}'s {1} {0.past}?",
        "At what time was the {1} {0.past} at {x}?",
    )),
    ("verb noun", (
        "Where do they {0} the {1} of {x}?",
        "At which place is the {1} of {x} {0.past}?",
        "In {x}, where is the {1} {0.past}?",
        "What is the place where {x}'s {1} gets {0.past}?",
    )),
    ("verb noun", (
        "Why does {x} {0} the {1}?",
        "For what reason is the {1} {0.past} by {x}?",
        "What makes {x} {0} the {1}?",
        "What is the reason for {0.gerund} the {1} at {x}?",
    )),
    ("verb noun", (
        "How do I {0} the {1} of {x}?",
        "What must be done to {0} {x}'s {1}?",
        "In which way is the {1} of {x} {0.past}?",
        "I want to {0} the {1} at {x}. How does that work?",
    )),
    ("verb noun", (
        "How often is the {1} of {x} {0.past}?",
        "How many times do they {0} the {1} at {x}?",
        "At what intervals is {x}'s {1} {0.past}?",
        "How frequently does {x} {0} its {1}?",
    )),
    ("plural noun", (
        "How many {0} does the {1} of {x} have?",
        "What is the number of {0} in {x}'s {1}?",
        "The {1} at {x} has how many {0}?",
        "Count of {0} for the {1} of {x}?",
    )),
    ("plural", (
        "How many {0} does {x} have?",
        "What number of {0} are there at {x}?",
        "{x} possesses how many {0}?",
        "How large is the number of {0} in {x}?",
    )),
    ("noun noun", (
        "What does the {0} cost per {1} at {x}?",
        "How much is the {0} for each {1} at {x}?",
        "What price must I pay for a {0} per {1} at {x}?",
    )),
    ("noun verb", (
        "Which {0} must be {1.past} at {x}?",
        "What {0} has to be {1.past} in {x}?",
        "Name the {0} that {x} requires to be {1.past}.",
    )),
    ("noun verb noun", (
        "What happens when the {0} {1.third} the {2} at {x}?",
        "If the {0} should {1} the {2} of {x}, what follows?",
        "What is the consequence of the {0} {1.gerund} {x}'s {2}?",
    )),
    ("noun noun", (
        "From which {1} is the {0} of {x} made?",
        "What kind of {1} is used for {x}'s {0}?",
        "The {0} at {x}: made from what {1}?",
    )),
    ("verb", (
        "What does {x} {0}?",
        "Which thing is {0.past} by {x}?",
        "What is it that {x} {0.third}?",
        "What gets {0.past} by {x}?",
    )),
    ("verb noun", (
        "What does the {1} of {x} {0}?",
        "Which thing does {x}'s {1} {0}?",
        "What is {0.past} by the {1} at {x}?",
    )),
    ("noun verb", (
        "How long does the {0} of {x} {1}?",
        "For what period does {x}'s {0} {1}?",
        "What is the duration for which the {0} at {x} {1.third}?",
    )),
    ("adjective noun noun", (
        "What should the {0} {1} of {x} do with the {2}?",
        "At {x}, what is a {0} {1} to do about the {2}?",
        "What are {0} {1}s supposed to do with {x}'s {2}?",
    )),
    ("noun adjective", (
        "How {1} is the {0} of {x}?",
        "To what degree is {x}'s {0} {1}?",
        "What makes the {0} at {x} {1}?",
    )),
)  # fmt: skip
"""Kinds of word, then wordings: `{0}` is the first word, `{x}` the thing asked about."""


def compose(lexicon: Lexicon, thing: str, wordings: int, rng: random.Random) -> list[str]:
    """One question about a thing in several wordings, at most as many as its frame has."""
    kinds, frame = rng.choice(FRAMES)
    words = [lexicon.draw(kind, rng) for kind in kinds.split()]
    chosen = rng.sample(frame, min(wordings, len(frame)))
    return [wording.format(*words, x=thing) for wording in chosen]
