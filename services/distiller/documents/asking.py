"""Makes questions that a passage answers, by rule, for facts that nobody asked about yet.

Plain grammar: what stands before the verb is asked about, by what stands behind it.
"""

from __future__ import annotations

import re

from services.distiller.documents import reading, words

_VERB = re.compile(
    r"^(?P<subject>(?:[^,;]{2,60}?)) "
    r"(?P<verb>is|are|was|were|has|have|had|can|must|may|will|should) (?P<rest>.+)$"
)
_BY_WHOM = re.compile(r"\bby ((?:the )?[A-Za-z][\w '’-]*[A-Z][\w'’-]+)")
_IN_YEAR = re.compile(r"\b(?:in|since|from|until) (?:1\d{3}|20\d\d)\b")
_COUNTED = re.compile(r"\b\d[\d,.]*\s+(?:[a-z]+ )?([a-z]+s)\b")
_PRONOUN = re.compile(r"^(?:it|they|he|she|this|these|its|their)\b", re.I)
_SHORTEST = 4


def questions(title: str, passage: reading.Passage) -> list[str]:
    """Questions that the passage answers, the most natural first; none for scraps of text.

    Args:
        title: what the document is about, for sentences that only say `it`.
        passage: a statement.
    """
    text = passage.text.rstrip(".!:; ")
    if len(words.content(text)) < _SHORTEST:
        return []
    found = _from_sentence(title, text)
    key_words = " ".join(word for word in re.findall(r"[\w'’-]+", text)[:12])
    found.append(f"What is said about this in {title}: {key_words}?")
    return list(dict.fromkeys(found))


def _from_sentence(title: str, text: str) -> list[str]:
    match = _VERB.match(text)
    if match is None:
        return []
    subject = _PRONOUN.sub(title, match["subject"])
    named = subject if subject[:1].isupper() and " " in subject else _lower_article(subject)
    about = named if _mentions(title, named) else f"{named} ({title})"
    verb, rest = match["verb"], match["rest"]
    found = []
    if verb in ("is", "are", "was", "were"):
        if year := _IN_YEAR.search(rest):
            found.append(f"When {verb} {about} {rest[: year.start()].strip()}?")
        if by := _BY_WHOM.search(rest):
            found.append(f"By whom {verb} {about} {rest[: by.start()].strip()}?")
        found.append(f"What {verb} {about}?")
    if counted := _COUNTED.search(rest):
        if verb in ("has", "have", "had"):
            found.append(f"How many {counted[1]} does {about} have?")
        else:
            found.append(f"What number of {counted[1]} goes with {about}?")
    if verb in ("can", "must", "may", "will", "should"):
        found.append(f"What {verb} {about} do?")
    return found


def _mentions(title: str, subject: str) -> bool:
    return bool(words.stems(title) & words.stems(subject))


def _lower_article(subject: str) -> str:
    first, _, rest = subject.partition(" ")
    return f"{first.lower()} {rest}" if first in ("The", "A", "An", "Its", "Every") else subject
