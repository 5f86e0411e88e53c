"""`WeightMapProbe`: which modules of a model matter for a set of prompts.

Two measures. Without gradients: the size of each weight times the size of what flows into it
("Wanda", Sun et al. 2024). With them: the size of each weight times the loss's gradient, the
first-order change of the loss if the weight were not there ("SNIP", Lee et al. 2019). Both are
means over a module's weights, so that large and small modules compare.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from shared import errors
from shared.models import base as bases

_TEXT_TOKENS = 512
_LEAST_RANK = 1
_MOST_TIMES_MEAN = 4.0
"""No module gets more than this many times the mean rank."""


@dataclasses.dataclass(frozen=True)
class ModuleHeat:
    """What one linear layer does for the prompts."""

    path: str
    activation: float
    """Root mean square of what flows into it."""
    weight: float
    """Mean size of its weights."""
    wanda: float
    """Mean over weights of size times the root mean square of the input they read."""
    snip: float | None
    """Mean over weights of size times the gradient's; None where no gradient was asked for."""
    largest_rank: int
    """The smaller of its sides, in features: no card can give it more."""
    heat: float
    """Its score, `snip` or else `wanda`, over the median of all modules."""

    @property
    def kind(self) -> str:
        """Last dotted part of the path, such as `q_proj`."""
        return self.path.rpartition(".")[2]


@dataclasses.dataclass(frozen=True)
class WeightMap:
    """All linear layers of the decoder, in the model's order."""

    rows: tuple[ModuleHeat, ...]

    def hot(self, share: float = 0.25) -> list[ModuleHeat]:
        """The hottest modules, the hottest first.

        Args:
            share: of all modules, above 0, at most 1; at least one is named.

        Raises:
            errors.InvalidInputError: the share is out of range.
        """
        if not 0.0 < share <= 1.0:
            raise errors.InvalidInputError(f"share is {share}; give one above 0, at most 1")
        count = max(1, round(share * len(self.rows)))
        return sorted(self.rows, key=lambda row: -row.heat)[:count]

    def target_modules(self, share: float = 0.25) -> tuple[str, ...]:
        """Kinds of module among the hottest, for a training's `target_modules`."""
        return tuple(dict.fromkeys(row.kind for row in self.hot(share)))

    def ranks(self, mean_rank: int, kinds: Collection[str] | None = None) -> dict[str, int]:
        """A rank for each module, by path, for a training's `ranks`.

        By its heat, `mean_rank` on average, 1 to 4 times that; less where layers are too small.

        Args:
            mean_rank: at least 1.
            kinds: of the modules, such as `target_modules` names them; None for all.

        Raises:
            errors.InvalidInputError: the mean is below 1.
        """
        if mean_rank < 1:
            raise errors.InvalidInputError(f"mean_rank is {mean_rank}; it must be at least 1")
        rows = [row for row in self.rows if kinds is None or row.kind in kinds]
        most = int(_MOST_TIMES_MEAN * mean_rank)
        return _shared_out(
            {row.path: max(row.heat, 1e-9) for row in rows},
            mean_rank * len(rows),
            {row.path: min(most, row.largest_rank) for row in rows},
        )


class WeightMapProbe:
    """Measures one model."""

    def __init__(self, base: bases.BaseModel) -> None:
        """Takes the model; nothing in it changes."""
        self._base = base
        head = base.model.get_output_embeddings()
        self._linears: dict[str, Any] = {
            path: module
            for path, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head
        }

    def measure(self, prompts: Sequence[str], gradient: bool = False) -> WeightMap:
        """Runs the prompts through the model.

        Args:
            prompts: each a user's message, read up to 512 tokens; at least one.
            gradient: measure `snip` too, of the loss of predicting the prompts; takes about three
                times as long and the memory of the weights once more.

        Raises:
            errors.InvalidInputError: there are no prompts.
        """
        if not prompts:
            raise errors.InvalidInputError("give at least one prompt to measure with")
        squares: dict[str, torch.Tensor] = {}
        gradients: dict[str, torch.Tensor] = {}
        tokens = 0
        with self._listening(squares), self._differentiable(gradient):
            for prompt in prompts:
                ids = torch.tensor([self._base.prompt_ids(prompt)[:_TEXT_TOKENS]])
                tokens += ids.shape[1]
                with torch.set_grad_enabled(gradient):
                    out = self._base.model(ids, labels=ids if gradient else None)
                if gradient:
                    self._gather(out.loss * ids.shape[1], gradients)
        return self._map(squares, gradients, tokens)

    @contextlib.contextmanager
    def _listening(self, squares: dict[str, torch.Tensor]) -> Iterator[None]:
        """Adds up the squares of what flows into each layer, by feature."""

        def listener(path: str) -> Any:
            def listen(_: Any, inputs: tuple[torch.Tensor, ...]) -> None:
                found = inputs[0].detach().double().flatten(0, -2).square().sum(0)
                squares[path] = squares[path] + found if path in squares else found

            return listen

        handles = [
            layer.register_forward_pre_hook(listener(path)) for path, layer in self._linears.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextlib.contextmanager
    def _differentiable(self, wanted: bool) -> Iterator[None]:
        before = {path: layer.weight.requires_grad for path, layer in self._linears.items()}
        try:
            for layer in self._linears.values():
                layer.weight.requires_grad_(wanted)
            yield
        finally:
            for path, layer in self._linears.items():
                layer.weight.requires_grad_(before[path])

    def _gather(self, loss: torch.Tensor, gradients: dict[str, torch.Tensor]) -> None:
        paths = list(self._linears)
        found = torch.autograd.grad(
            loss, [self._linears[path].weight for path in paths], allow_unused=True
        )
        for path, part in zip(paths, found, strict=True):
            if part is not None:
                gradients[path] = gradients[path] + part if path in gradients else part

    def _map(
        self,
        squares: Mapping[str, torch.Tensor],
        gradients: Mapping[str, torch.Tensor],
        tokens: int,
    ) -> WeightMap:
        measured = []
        for path, layer in self._linears.items():
            if path not in squares:
                continue  # Prompts do not pass it, as in a branch for images.
            weight_O_I = layer.weight.detach().abs().double()
            flow_I = (squares[path] / tokens).sqrt()
            gradient = gradients.get(path)
            snip = (
                None if gradient is None else float((weight_O_I * (gradient / tokens).abs()).mean())
            )
            measured.append(
                ModuleHeat(
                    path=path,
                    activation=float(flow_I.square().mean().sqrt()),
                    weight=float(weight_O_I.mean()),
                    wanda=float((weight_O_I * flow_I).mean()),
                    snip=snip,
                    largest_rank=min(layer.in_features, layer.out_features),
                    heat=0.0,
                )
            )
        scores = [row.wanda if row.snip is None else row.snip for row in measured]
        middle = statistics.median(scores) or 1.0
        return WeightMap(
            tuple(
                dataclasses.replace(row, heat=score / middle)
                for row, score in zip(measured, scores, strict=True)
            )
        )


def _shared_out(heat: Mapping[str, float], budget: int, most: Mapping[str, int]) -> dict[str, int]:
    """Whole numbers of the given sum in proportion to heat, within bounds.

    What is over the bound of one goes to the others, remainders to the largest first.
    """
    ranks = dict.fromkeys(heat, _LEAST_RANK)
    left = budget - len(ranks) * _LEAST_RANK
    while left > 0 and (open_ := [path for path in heat if ranks[path] < most[path]]):
        total = sum(heat[path] for path in open_)
        shares = {path: left * heat[path] / total for path in open_}
        given = {path: min(int(shares[path]), most[path] - ranks[path]) for path in open_}
        if not any(given.values()):
            for path in sorted(open_, key=lambda path: -shares[path])[:left]:
                given[path] = 1
        for path, more in given.items():
            ranks[path] += more
        left = budget - sum(ranks.values())
    return ranks
