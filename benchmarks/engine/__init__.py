"""`make bench area=engine`: cards in the model against PEFT, in one process and one run.

Two shapes: the embedded base, and Qwen2.5-0.5B with random weights. Each figure is a median, and
where two are compared their runs take turns, so that a machine that slows down weighs on both.
"""

from benchmarks.engine.measure import measure

__all__ = ["measure"]
