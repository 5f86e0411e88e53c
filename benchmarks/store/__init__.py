"""`make bench area=store`: the card store as it runs, beside a raw TCP copy and an HTTP download.

From a publication to the card being served on three nodes; how fast hundreds of watchers hear of
it; how fast cards travel; what a catalogue of 100,000 cards costs.
"""

from benchmarks.store.measure import measure

__all__ = ["measure"]
