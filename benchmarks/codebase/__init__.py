"""`make bench area=codebase`: how a repository is read, and what a card learns from this one."""

from benchmarks.codebase.measure import measure

__all__ = ["measure"]
