"""What is kept of a generation beside its text: tokens, likeliest logits, and what was active.

A request that is to be remembered brings a `Capture`; the batch fills it in the model's thread. The
layers are looked into by hooks, which are there for one forward pass in which such a row takes
part: no other pass, and no other user of the model, ever meets one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from shared import errors

TOP_K = 32


@dataclasses.dataclass(frozen=True)
class Taken:
    """What one generation was."""

    prompt: Sequence[int]
    answer: Sequence[int]
    """T token ids, the one that ended it included."""
    top_ids: torch.Tensor
    """(T, K), int32: the likeliest tokens at each position, likeliest first."""
    top_logits: torch.Tensor
    """(T, K), float32."""
    log_sums: torch.Tensor
    """(T,), float32: log-sum-exp over the whole vocabulary."""
    inputs: Mapping[str, torch.Tensor]
    """Path to a layer's mean input over the positions that gave the answer's tokens,
    (in_features,), float32."""
    activity: Mapping[str, torch.Tensor]
    """Path to the root mean square of x A over the same positions, (rank,), float32."""


class Capture:
    """Fills while one answer is generated; `taken` once it has ended."""

    def __init__(
        self,
        inputs: Collection[str],
        channels: Mapping[str, torch.Tensor],
        top_k: int = TOP_K,
    ) -> None:
        """Begins empty.

        Args:
            inputs: paths of the linear layers whose input is wanted.
            channels: path of a linear layer to matrices A, (in_features, rank), float32: the
                activity of these rank channels is wanted.
            top_k: logits that are kept of each position.
        """
        self._wanted = frozenset(inputs)
        self._channels = channels
        self.paths = self._wanted | channels.keys()
        """Of the layers that are looked into."""
        self._top_k = top_k
        self._prompt: Sequence[int] = ()
        self._answer: list[int] = []
        self._tops: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self._inputs: dict[str, torch.Tensor] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._passes = 0

    def begin(self, prompt: Sequence[int]) -> None:
        """Takes the prompt's token ids."""
        self._prompt = prompt

    def count(self) -> None:
        """Says that another forward pass was looked into."""
        self._passes += 1

    def look(self, path: str, x_I: torch.Tensor) -> None:
        """Takes the input of a layer at the position that gives the next token, (in_features,)."""
        seen = x_I.float()
        if path in self._wanted:
            _add(self._inputs, path, seen)
        if (matrix := self._channels.get(path)) is not None:
            _add(self._squares, path, (seen @ matrix.to(seen.device)).square())

    def add(self, token: int, logits_V: torch.Tensor) -> None:
        """Takes a token and the logits that it was chosen from."""
        self._answer.append(token)
        wide = logits_V.float()
        top = wide.topk(min(self._top_k, len(wide)))
        self._tops.append((top.indices.int().cpu(), top.values.cpu(), wide.logsumexp(0).cpu()))

    def taken(self) -> Taken:
        """What was captured.

        Raises:
            errors.PreconditionError: no token was generated.
        """
        if not self._answer:
            raise errors.PreconditionError("nothing was generated that could be remembered")
        ids, values, log_sums = zip(*self._tops, strict=True)
        return Taken(
            prompt=self._prompt,
            answer=self._answer,
            top_ids=torch.stack(ids),
            top_logits=torch.stack(values),
            log_sums=torch.stack(log_sums),
            inputs={path: (one / self._passes).cpu() for path, one in self._inputs.items()},
            activity={
                path: (one / self._passes).sqrt().cpu() for path, one in self._squares.items()
            },
        )


def _add(sums: dict[str, torch.Tensor], path: str, seen: torch.Tensor) -> None:
    before = sums.get(path)
    sums[path] = seen.clone() if before is None else before.add_(seen)


@contextlib.contextmanager
def looking(
    found: Sequence[Capture | None], layer: Callable[[str], torch.nn.Module]
) -> Iterator[None]:
    """Has the layers looked into during one forward pass; does nothing where no row asks for it.

    Args:
        found: of each row of the batch.
        layer: gives the bare linear layer of a path.
    """
    rows = [(at, one) for at, one in enumerate(found) if one is not None]
    if not rows:
        yield
        return
    with contextlib.ExitStack() as hooks:
        for path in sorted(set().union(*(one.paths for _, one in rows))):
            here = [(at, one) for at, one in rows if path in one.paths]
            hook = _hook(path, len(found), here)
            hooks.callback(layer(path).register_forward_pre_hook(hook).remove)
        yield
    for _, capture in rows:
        capture.count()


def _hook(
    path: str, batch: int, rows: Sequence[tuple[int, Capture]]
) -> Callable[[Any, tuple[Any, ...]], None]:
    def look(_: Any, arguments: tuple[Any, ...]) -> None:
        x_B_T_I: torch.Tensor = arguments[0]
        if x_B_T_I.ndim != 3 or x_B_T_I.shape[0] != batch:
            raise errors.InternalError(
                f"layer {path} got an input of shape {tuple(x_B_T_I.shape)} for a batch of "
                f"{batch} rows: this model mixes rows, so that they can't be told apart"
            )
        for at, capture in rows:
            # Rows are right-aligned: the last position is the one that gives the next token.
            capture.look(path, x_B_T_I[at, -1])

    return look
