"""Who is told how learning goes; knows nothing of where that is shown."""

from __future__ import annotations

from typing import Protocol

from services.factory import partners


class Observer(Protocol):
    """Is told of everything once, as it happens."""

    def stage(self, name: str, seconds: float, failed: bool) -> None:
        """A step of a workflow ran to its end, well or not."""

    def gate(self, proof: partners.Proof) -> None:
        """A draft was measured."""


class Nobody:
    """Looks away."""

    def stage(self, name: str, seconds: float, failed: bool) -> None:
        """Looks away."""

    def gate(self, proof: partners.Proof) -> None:
        """Looks away."""
