"""When a card is asked another question than the user's: one that it was trained on.

One rule for the nodes, which ask so, and for the trainer, which proves cards as nodes will ask them
(docs/adr/0009). Knows nothing about how a question is read.
"""

from __future__ import annotations


def rewritten(query: str, reading: str, similarity: float, least: float | None) -> str:
    """What the card is asked in place of a question; empty where it is the question itself.

    Args:
        query: the question.
        reading: the example of the card that asks the same, as the router reads the question;
            empty where none is known.
        similarity: cosine of the question to the card's nearest example.
        least: the similarity from which on a question is rewritten
            (`inference.query_rewriting`); None: never.
    """
    if least is None or similarity < least:
        return ""
    return reading if reading != query else ""
