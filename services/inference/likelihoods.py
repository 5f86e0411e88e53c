"""How likely the model held each token of an answer, and the likeliest in its place.

Of the model's own distribution, whatever temperature or form the tokens were chosen with. Rows that
do not ask cost nothing. `add` runs on logits, `Telling` on text: a token is told with the last of
its characters, and never what a stop string cut off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from services.inference import vocabularies


@dataclasses.dataclass(frozen=True)
class Likely:
    """A token and how likely it was."""

    text: str
    """Characters that are complete with it."""
    utf8: bytes
    """Its part of the answer; a character may spread over several tokens."""
    logprob: float
    """Natural logarithm."""


@dataclasses.dataclass(frozen=True)
class TokenLogprob(Likely):
    """A token of an answer."""

    top: tuple[Likely, ...] = ()
    """The likeliest in its place, likeliest first."""


@dataclasses.dataclass(eq=False)
class Scores:
    """Of one row; overwritten by each of its tokens."""

    top: int
    """How many of the likeliest are wanted beside the chosen one."""
    token: int = -1
    logprob: float = 0.0
    likeliest: tuple[tuple[int, float], ...] = ()
    """Token and log-probability."""


def add(scores: Sequence[Scores | None], logits_B_V: torch.Tensor, tokens: Sequence[int]) -> None:
    """Takes the latest token of several answers.

    Args:
        scores: one a row; None is passed over.
        logits_B_V: of the model, (rows, vocabulary).
        tokens: the chosen ones.
    """
    logprobs_B_V = logits_B_V.float().log_softmax(-1)
    chosen_B_1 = torch.tensor(tokens, device=logits_B_V.device)[:, None]
    chosen = logprobs_B_V.gather(-1, chosen_B_1)[:, 0].tolist()
    most = max((one.top for one in scores if one is not None), default=0)
    top = logprobs_B_V.topk(min(most, logprobs_B_V.shape[-1]))
    rows = zip(scores, tokens, chosen, top.indices.tolist(), top.values.tolist(), strict=True)
    for one, token, logprob, ids, values in rows:
        if one is not None:
            one.token, one.logprob = token, logprob
            one.likeliest = tuple(zip(ids, values, strict=True))[: one.top]


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """A token whose text is not known yet."""

    token: int
    logprob: float
    likeliest: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class _Read:
    """A token whose text is not all handed out."""

    text: str
    utf8: bytes
    chosen: _Chosen


class Telling:
    """Tells the tokens of one answer as their text is handed out."""

    def __init__(self, vocabulary: vocabularies.Vocabulary, scores: Scores) -> None:
        """Takes what tokens say, and where the latest one's scores are."""
        self._vocabulary = vocabulary
        self.scores = scores
        self._unread: list[_Chosen] = []
        self._waiting: list[_Read] = []
        self._owed = 0
        """Characters that were handed out, of tokens that were not told."""

    def add(self, text: str) -> None:
        """Takes the latest token, and the text that it completes, with those before it."""
        latest = self.scores
        self._unread.append(_Chosen(latest.token, latest.logprob, latest.likeliest))
        if text:
            self.read(text)

    def handed_out(self, text: str) -> tuple[TokenLogprob, ...]:
        """The tokens that are complete with this piece of the answer."""
        self._owed += len(text)
        count = 0
        for at, one in enumerate(self._waiting):
            if len(one.text) > self._owed:
                break
            self._owed -= len(one.text)
            if one.text:  # Others belong to the character after them.
                count = at + 1
        told, self._waiting = self._waiting[:count], self._waiting[count:]
        return tuple(map(self._told, told))

    def rest(self, cut: bool) -> tuple[TokenLogprob, ...]:
        """The tokens that are left when the answer has ended and is all handed out.

        Args:
            cut: whether a stop string cut the answer: what is left of a token is its part.
        """
        left, self._waiting = self._waiting, []
        if not cut:
            return tuple(map(self._told, left))
        found = []
        for one in left:
            if not self._owed:
                break
            kept = one.text[: self._owed]
            self._owed -= len(kept)
            lost = len(one.text[len(kept) :].encode())
            utf8 = one.utf8[: len(one.utf8) - lost]
            found.append(self._told(dataclasses.replace(one, text=kept, utf8=utf8)))
        return tuple(found)

    def read(self, text: str) -> None:
        """Takes what the tokens that have no text yet say together; at the end even nothing."""
        unread, self._unread = self._unread, []
        said = [self._said(one.token) for one in unread]
        parts = vocabularies.shared_out(said, text) if unread else []
        self._waiting += [_Read(*part, one) for part, one in zip(parts, unread, strict=True)]

    def _said(self, token: int) -> bytes:
        return b"" if self._vocabulary.is_special(token) else self._vocabulary.utf8(token)

    def _told(self, one: _Read) -> TokenLogprob:
        top = tuple(
            Likely(one.text, one.utf8, logprob)
            if token == one.chosen.token
            else self._alone(token, logprob)
            for token, logprob in one.chosen.likeliest
        )
        return TokenLogprob(one.text, one.utf8, one.chosen.logprob, top)

    def _alone(self, token: int, logprob: float) -> Likely:
        utf8 = self._vocabulary.utf8(token)
        return Likely(utf8.decode("utf-8", "replace"), utf8, logprob)
