"""`make bench area=hierarchy`: what the layers remember, share and cost."""

from benchmarks.hierarchy.measure import measure

__all__ = ["measure"]
