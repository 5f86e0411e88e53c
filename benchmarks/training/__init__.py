"""`make bench area=training`: what a training costs, the own loop against PEFT.

Every training runs in a process of its own, so that what one leaves behind weighs on no other, and
those that are compared take turns.
"""

from benchmarks.training.measure import measure

__all__ = ["measure"]
