"""`make bench area=router`: the router as production wires it, beside semantic-router.

CLINC150 with one intent as one card, at 100, 10 and 5 examples a card: how often the right card
comes first, how well questions that no card fits are told apart, how honest the probabilities are,
and how long a decision takes.
"""

from benchmarks.router.measure import measure

__all__ = ["measure"]
