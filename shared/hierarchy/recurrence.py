"""How often a pattern comes back: the patterns of a window of signatures, and their recurrence.

Pure functions of the window, so that equal windows give equal patterns. Knows nothing about layers.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn import functional as F


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern:
    """Signatures of the window that are alike."""

    prototype: torch.Tensor
    """(S,), float32: their mean, of unit length."""
    present: torch.Tensor
    """(N,), bool: where in the window it is."""
    recurrence: float
    """0 to 1."""


def recurrence(series: torch.Tensor) -> float:
    """How strongly a series repeats itself, 0 to 1.

    The larger of two figures:

    1. The normalised autocorrelation at its best lag. With c the series less its mean,
       r(L) = sum over t of c[t] c[t + L] / sum over t of c[t]^2, for lags L of 1 to N / 2. It is
       the biased estimate (Box and Jenkins): the sum has N - L terms and is divided as if it had N,
       so that few overlapping values never pass for a strong correlation. Something with period P
       comes to about 1 - P / N: at a threshold of 0.7 periods of up to a quarter of the window are
       found. One run of b values comes to about 1 - 1 / b at lag 1: four in a row are found.
    2. The share of the window where the series is above 0. A constant series has no variance, and
       of one that is nearly constant the mean takes everything away; something that is always
       there nevertheless recurs. So a constant series gives 1, a constant 0 gives 0, and between
       them the figure is what the autocorrelation would be without taking the mean away, for
       values independent of one another.

    So what comes at random times does not recur, however often it comes, below seven in ten: facts
    that are learned in a new order each round are not found, in one order, or several times in a
    row, they are.

    Args:
        series: (N,): similarity of each value of the window to a pattern, 0 where it is absent.
    """
    values = series.double()
    if len(values) < 2:
        return 0.0
    share = float((values > 0).double().mean())
    centred = values - values.mean()
    energy = float(centred @ centred)
    if energy <= 1e-12 * len(values):
        return share
    spectrum = torch.fft.rfft(centred, n=2 * len(values))
    correlations = torch.fft.irfft(spectrum.abs().square(), n=2 * len(values)) / energy
    best = float(correlations[1 : len(values) // 2 + 1].max())
    return min(1.0, max(share, best))


def patterns(signatures: torch.Tensor, same: float, fewest: int) -> list[Pattern]:
    """The patterns of a window, those that recur most first.

    Leader clustering: the signature with most others like it makes a pattern with them, then the
    same of those left over. The series whose recurrence is taken is the cosine of each signature to
    the pattern's prototype where it is at least `same`, and 0 elsewhere, so that likeness of
    everything with everything doesn't count.

    Args:
        signatures: (N, S), of unit length, or zero where nothing was active.
        same: cosine from which on two signatures are one pattern, above 0.
        fewest: signatures that a pattern has.
    """
    units = F.normalize(signatures.float(), dim=1)
    like = units @ units.T >= same
    free = like.diagonal().clone()
    found = []
    while True:
        counts = (like & free).sum(dim=1) * free
        if not len(counts) or int(counts.max()) < fewest:
            break
        leader = int(counts.argmax())
        prototype = F.normalize(units[like[leader] & free].mean(dim=0), dim=0)
        cosines = units @ prototype
        present = cosines >= same
        series = torch.where(present, cosines, torch.zeros_like(cosines))
        if int(present.sum()) >= fewest:
            found.append(Pattern(prototype, present, recurrence(series)))
        free &= ~present
        free[leader] = False  # within rounding it is present, too
    return sorted(found, key=lambda pattern: -pattern.recurrence)
