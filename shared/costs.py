"""What calls to teachers cost, as the services tell one another and people."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Spent:
    """What some calls cost together."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    """Of the calls whose price is known."""
    unpriced_calls: int = 0
    """Of models that cost money and have no rate."""
    estimated_calls: int = 0
    """Whose tokens are estimates: the server told none, or the end of the call was not seen."""

    def __str__(self) -> str:
        """For people: `3 calls, 4,210 tokens, $0.0231`; empty where nothing was asked."""
        if not self.calls:
            return ""
        tokens = self.tokens_in + self.tokens_out
        about = "about " if self.estimated_calls else ""
        parts = [
            "1 call" if self.calls == 1 else f"{self.calls} calls",
            f"{about}{tokens:,} tokens",
        ]
        if self.dollars:
            parts.append(f"{about}${self.dollars:.4f}")
        if self.unpriced_calls:
            parts.append(f"price of {self.unpriced_calls} unknown")
        return ", ".join(parts)


NOTHING = Spent()
