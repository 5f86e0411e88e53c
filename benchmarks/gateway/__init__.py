"""`make bench area=gateway`: what the gateway costs, and what it stands.

What it adds to an answer; many streams beside `transformers serve`; minutes under load while cards
come, and while processes die.
"""

from benchmarks.gateway.parts import measure

__all__ = ["measure"]
