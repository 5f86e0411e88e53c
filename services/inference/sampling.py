"""How the next token is chosen, and where an answer ends.

One `Sampler` an answer: rows of a batch are chosen each in its own way and from its own random
source, so that a seed gives the same answer whoever else is in the batch. Knows no model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import transformers

from shared import errors

MOST_STOPS = 16
LONGEST_STOP_CHARACTERS = 200
MOST_TOP_LOGPROBS = 20
_COLDEST, _HOTTEST = 1e-3, 5.0
"""A temperature below the coldest would make scores that no float32 holds."""


@dataclasses.dataclass(frozen=True)
class Sampling:
    """What a request says about how it wants to be answered, and what to be told of it."""

    temperature: float = 0.0
    """0 takes the likeliest token each time, and so does what is below 0.001; up to 5."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability (nucleus sampling, Holtzman et
    al. 2019)."""
    top_k: int = 0
    """Only so many of the likeliest tokens; 0 for all."""
    seed: int | None = None
    """The same seed gives the same answer; None takes a new one each time."""
    stop: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    json_schema: str = ""
    """The answer is JSON that fits it; empty for free text."""
    top_logprobs: int | None = None
    """The log-probability of each token is told, beside those of so many likeliest; up to 20.
    None: of none."""

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            errors.InvalidInputError: names the field.
        """
        ranges = (
            ("temperature", 0.0 <= self.temperature <= _HOTTEST, f"0 to {_HOTTEST:g}"),
            ("top_p", 0.0 < self.top_p <= 1.0, "more than 0 and at most 1"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("seed", self.seed is None or 0 <= self.seed < 2**63, "0 to 2**63 - 1"),
            (
                "top_logprobs",
                self.top_logprobs is None or 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS,
                f"0 to {MOST_TOP_LOGPROBS}",
            ),
        )
        for name, fits, expected in ranges:
            if not fits:
                raise errors.InvalidInputError(
                    f"{name} is {getattr(self, name)}, expected {expected}"
                )
        if len(self.stop) > MOST_STOPS:
            raise errors.InvalidInputError(
                f"stop has {len(self.stop)} strings, at most {MOST_STOPS} are watched for"
            )
        for place, text in enumerate(self.stop):
            if not 0 < len(text) <= LONGEST_STOP_CHARACTERS:
                raise errors.InvalidInputError(
                    f"stop[{place}] has {len(text)} characters, expected 1 to "
                    f"{LONGEST_STOP_CHARACTERS}"
                )


GREEDY = Sampling()
"""The likeliest token each time, to the end."""


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(self, sampling: Sampling) -> None:
        """Prepares; the random source belongs to this answer alone."""
        self._greedy = sampling.temperature < _COLDEST
        self._warpers = transformers.LogitsProcessorList()
        if self._greedy:
            return
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)
        # In the order of transformers' own `generate`.
        self._warpers.append(transformers.TemperatureLogitsWarper(sampling.temperature))
        if sampling.top_k:
            self._warpers.append(transformers.TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1.0:
            self._warpers.append(transformers.TopPLogitsWarper(sampling.top_p))

    def choose(self, logits_V: torch.Tensor, likeliest: int, highest: float) -> int:
        """The next token.

        Args:
            logits_V: of the last position, (vocabulary,); contiguous is faster.
            likeliest: the token of the highest one: rows look for theirs together.
            highest: its logit.

        Raises:
            errors.PreconditionError: the model gave no finite scores.
        """
        if not math.isfinite(highest):
            raise errors.PreconditionError(
                "the model's scores for the next token are not finite numbers; the weights of the "
                "card, or of the base model, are too large for its dtype"
            )
        if self._greedy:
            return likeliest
        scores_1_V = self._warpers(None, logits_V.float().cpu()[None])
        return int(torch.multinomial(scores_1_V.softmax(-1)[0], 1, generator=self._random))


class StopWatch:
    """Hands text on as long as no stop string can have begun in it."""

    def __init__(self, stops: Sequence[str]) -> None:
        """Takes the strings to watch for; none hands everything on at once."""
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False
        """Whether one was found; nothing comes after it."""

    def add(self, text: str) -> str:
        """What may be handed out now."""
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            safe, self._held = self._held[: min(found)], ""
            return safe
        safe_to = len(self._held) - self._begun()
        safe, self._held = self._held[:safe_to], self._held[safe_to:]
        return safe

    def rest(self) -> str:
        """What was held back, when the tokens have ended."""
        held, self._held = self._held, ""
        return held

    def _begun(self) -> int:
        """Characters at the end that a stop string begins with."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._stops):
                return length
        return 0
