"""Streams of signatures in which a pattern was planted, or none."""

from __future__ import annotations

import torch
from torch.nn import functional as F

SIZE = 256


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def units(count: int, generator: torch.Generator) -> torch.Tensor:
    return F.normalize(torch.randn(count, SIZE, generator=generator), dim=1)


def varied(centres: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Cosine to the centre about 0.93, to one another 0.86."""
    return F.normalize(centres + 0.4 * units(len(centres), generator), dim=1)


def unlike(length: int, generator: torch.Generator) -> torch.Tensor:
    return units(length, generator)


def topics(length: int, count: int, generator: torch.Generator) -> torch.Tensor:
    drawn = torch.randint(count, (length,), generator=generator)
    return varied(units(count, generator)[drawn], generator)


def periodic(length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A pattern with a period of 2 to 20 among unlike ones."""
    period = int(torch.randint(2, 21, (1,), generator=generator))
    stream, pattern = units(length, generator), units(1, generator)
    at = torch.arange(int(torch.randint(period, (1,), generator=generator)), length, period)
    stream[at] = varied(pattern.expand(len(at), -1), generator)
    return stream, pattern[0]


def bursty(length: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A pattern that comes 5 to 15 times in a row, with 10 to 29 unlike ones between."""
    stream, pattern = units(length, generator), units(1, generator)
    start = int(torch.randint(30, (1,), generator=generator))
    while start < length:
        stop = min(length, start + int(torch.randint(5, 16, (1,), generator=generator)))
        stream[start:stop] = varied(pattern.expand(stop - start, -1), generator)
        start = stop + int(torch.randint(10, 30, (1,), generator=generator))
    return stream, pattern[0]
