"""One round of learning: a few steps on feedback, with gradients for the layers alone.

An agent learns on its own copy of the whole stack (local steps as in federated learning, McMahan et
al. 2017), each layer at its own speed. What comes out is, layer by layer, a *gradient*: the change
that a layer without inertia would have made (pseudo-gradient: Reddi et al. 2021). The layers
themselves are not touched.

Two things make what was learned last and travel. Each step rehearses what the agent has learned
before (experience replay). And a share of the steps runs on the shared layers alone, so that they
answer without the agent's own, for agents that have others (nested dropout over the layers: Rippel
et al. 2014).
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from shared.hierarchy import levels, stack, weights
from shared.lora import linear
from shared.lora import manager as managers

_IGNORED = -100
Trained = Mapping[levels.Level, Mapping[str, weights.Factors]]
"""The layers while they learn: leaves that take gradients."""
Penalty = Callable[[Trained], torch.Tensor]
"""What is added to the loss of a step, a scalar."""


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One answer that is to be given, or to be kept."""

    prompt: tuple[int, ...]
    """Token ids up to where the answer starts; at least one."""
    answer: tuple[int, ...]
    """Token ids with the end token; at least one."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a round learns."""

    steps: int = 10
    rows: int = 8
    """Lessons a step."""
    rehearsed_rows: int = 4
    """And so many that are rehearsed, as far as there are any."""
    held_rows: int = 2
    """And so many questions of others on which the base's own answers are to stay."""
    learning_rate: float = 1e-3
    """AdamW's, of a layer without inertia."""
    shared_share: float = 0.5
    """Of the steps that run on the shared layers alone."""
    decline: float = 0.0
    """Share of the learning rate that is gone at the end of a round."""
    clip_norm: float = 1.0
    """Gradients of a step are clipped to this norm."""


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a round found."""

    gradients: Mapping[levels.Level, weights.Delta]
    """Of every layer that took part, (dA, dB), as without inertia; float32, on the CPU."""
    loss: float
    """Mean cross-entropy of the last step, nats a token."""
    lessons: int
    """Different ones of feedback."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """AdamW's running means of an agent's gradients, twice the size of its stack.

    Worth keeping from round to round: the first steps of a fresh optimiser go by the signs alone.
    """

    state: Mapping[int, Mapping[str, torch.Tensor]]

    @property
    def size_bytes(self) -> int:
        """What they take in memory."""
        return sum(value.nbytes for one in self.state.values() for value in one.values())


class Round:
    """One round on one model; for the thread that may touch the model."""

    def __init__(
        self,
        model: Any,
        manager: managers.LoRAManager,
        layers: stack.Stack,
        specs: Mapping[levels.Level, levels.Spec],
        recipe: Recipe,
        pad_id: int,
        moments: Moments | None = None,
    ) -> None:
        """Prepares; nothing of the model changes before `steps`.

        Args:
            model: the causal LM.
            manager: of its cards.
            layers: what the agent answers with now; all adapt the same modules.
            specs: inertia of each layer.
            recipe: how it learns.
            pad_id: padding token.
            moments: of the agent's round before; without them the first steps are coarse.
        """
        self._model, self._manager, self._pad = model, manager, pad_id
        self._specs, self._recipe = specs, recipe
        device = next(model.parameters()).device
        self._before = layers
        self._paths = list(next(iter(layers.layers.values())))
        self._now: dict[levels.Level, dict[str, weights.Factors]] = {
            level: {path: _trainable(found, device) for path, found in of_level.items()}
            for level, of_level in layers.layers.items()
        }
        self._optimiser = torch.optim.AdamW(
            [
                {"params": list(self._parameters([level])), "lr": self._rate(level)}
                for level in self._now
            ],
            weight_decay=0.0,
            fused=True,
        )
        if moments is not None:
            groups = self._optimiser.state_dict()["param_groups"]
            self._optimiser.load_state_dict({"state": moments.state, "param_groups": groups})
        self._loss, self._lessons = float("nan"), 0

    def steps(
        self,
        lessons: Sequence[Lesson],
        rehearsed: Sequence[Lesson],
        seed: int,
        held: Sequence[Lesson] = (),
        penalty: Penalty | None = None,
    ) -> Iterator[float]:
        """Learns step by step, so that the model can answer in between; yields each step's loss.

        Args:
            lessons: feedback; empty where an agent only rehearses.
            rehearsed: what is to be kept.
            seed: decides which lessons meet, and which steps are for the shared layers alone.
            held: questions about anything else with the bare base's own answers: without them a
                model that learns one answer gives it to everybody.
            penalty: joins the loss, such as that of elastic weight consolidation.
        """
        rng = random.Random(seed)
        self._lessons = len(set(lessons))
        sources = [
            (_endless(lessons, rng), self._recipe.rows if lessons else 0),
            (_endless(rehearsed, rng), self._recipe.rehearsed_rows if rehearsed else 0),
            (_endless(held, rng), self._recipe.held_rows if held else 0),
        ]
        recipe = self._recipe
        with _resident(self._manager, self._paths) as adapters:
            for step in range(recipe.steps):
                self._set_rates(1.0 - recipe.decline * step / recipe.steps)
                rows = [next(source) for source, count in sources for _ in range(count)]
                if not rows:
                    return
                alone = rng.random() < recipe.shared_share
                self._loss = self._step(adapters, rows, alone, penalty)
                yield self._loss

    def learned(self) -> Learned:
        """What came out of the steps so far."""
        gradients = {
            level: {
                path: _difference(now, self._before.layers[level][path], self._share(level))
                for path, now in of_level.items()
            }
            for level, of_level in self._now.items()
        }
        return Learned(gradients, self._loss, self._lessons)

    def moments(self) -> Moments:
        """For the agent's next round, on the CPU; that round writes them over."""
        state = self._optimiser.state_dict()["state"]
        return Moments(
            {at: {name: value.cpu() for name, value in one.items()} for at, one in state.items()}
        )

    def squared_gradients(self, lessons: Sequence[Lesson]) -> Trained:
        """Mean over the lessons of each parameter's squared gradient, where the layers stand.

        The diagonal of the empirical Fisher information.
        """
        total = {
            level: {
                path: weights.Factors(torch.zeros_like(held.a), torch.zeros_like(held.b))
                for path, held in of_level.items()
            }
            for level, of_level in self._now.items()
        }
        with _resident(self._manager, self._paths) as adapters:
            for lesson in lessons:
                self._optimiser.zero_grad(set_to_none=True)
                self._forward(adapters, [lesson], list(self._now)).backward()
                for level, of_level in self._now.items():
                    for path, held in of_level.items():
                        for into, one in zip(
                            (total[level][path].a, total[level][path].b),
                            (held.a, held.b),
                            strict=True,
                        ):
                            if one.grad is not None:
                                into.add_(one.grad**2, alpha=1.0 / len(lessons))
        return total

    def _step(
        self,
        adapters: Mapping[str, linear.Adapter],
        rows: Sequence[Lesson],
        alone: bool,
        penalty: Penalty | None,
    ) -> float:
        taking_part = [level for level in self._now if level.is_shared or not alone]
        loss = told = self._forward(adapters, rows, taking_part)
        if penalty is not None:
            loss = loss + penalty(self._now)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self._parameters(taking_part)), self._recipe.clip_norm)
        self._optimiser.step()
        return float(told.detach())

    def _forward(
        self,
        adapters: Mapping[str, linear.Adapter],
        rows: Sequence[Lesson],
        taking_part: Sequence[levels.Level],
    ) -> torch.Tensor:
        for path, adapter in adapters.items():
            parts = [self._now[level][path] for level in taking_part]
            adapter.lora_a = torch.cat([part.a for part in parts], dim=1)
            adapter.lora_b = torch.cat([part.b for part in parts], dim=0)
        self._manager.activate(_KEY)
        try:
            return _cross_entropy(self._model, rows, self._pad)
        finally:
            self._manager.activate(None)

    def _set_rates(self, share: float) -> None:
        for level, group in zip(self._now, self._optimiser.param_groups, strict=True):
            group["lr"] = self._rate(level) * share

    def _parameters(self, of: Sequence[levels.Level]) -> Iterator[torch.Tensor]:
        for level in of:
            for factors in self._now[level].values():
                yield from (factors.a, factors.b)

    def _share(self, level: levels.Level) -> float:
        return 1.0 - self._specs[level].inertia

    def _rate(self, level: levels.Level) -> float:
        return self._recipe.learning_rate * self._share(level)


@contextlib.contextmanager
def answering_with(manager: managers.LoRAManager, layers: stack.Stack) -> Iterator[None]:
    """While this is open the model answers with a stack; for the thread that may touch it."""
    composed = layers.composed()
    with _resident(manager, composed) as adapters:
        for path, adapter in adapters.items():
            adapter.lora_a, adapter.lora_b = composed[path].a, composed[path].b
        manager.activate(_KEY)
        yield


@contextlib.contextmanager
def _resident(
    manager: managers.LoRAManager, paths: Iterable[str]
) -> Iterator[dict[str, linear.Adapter]]:
    """Adapters in the model whose weights are whatever they are given; out of it at the end."""
    # Their first weights are never used.
    adapters = manager.add_trainable(_KEY, paths, 1, 1.0, torch.Generator())
    try:
        yield adapters
    finally:
        manager.remove_card(_KEY)


@torch.no_grad()
def are_right(model: Any, lessons: Sequence[Lesson], pad_id: int, rows: int = 16) -> list[bool]:
    """Whether every token of each answer is the likeliest one, with whatever card is active."""
    order = sorted(range(len(lessons)), key=lambda at: len(lessons[at].prompt))
    found = [False] * len(lessons)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        logits_B_T_V, labels_B_T = _logits(model, [lessons[at] for at in chosen], pad_id)
        right = (logits_B_T_V.argmax(-1) == labels_B_T) | (labels_B_T == _IGNORED)
        for at, is_right in zip(chosen, right.all(dim=1).tolist(), strict=True):
            found[at] = is_right
    return found


_KEY = "a round of the hierarchy"


def _cross_entropy(model: Any, rows: Sequence[Lesson], pad_id: int) -> torch.Tensor:
    logits_B_T_V, labels_B_T = _logits(model, rows, pad_id)
    return F.cross_entropy(
        logits_B_T_V.flatten(0, 1).float(), labels_B_T.flatten(), ignore_index=_IGNORED
    )


def _logits(model: Any, rows: Sequence[Lesson], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the answers, (rows, tokens, vocabulary), and what they should say."""
    device = next(model.parameters()).device
    # The last token is only ever predicted. Padded on the left, so that all answers end together
    # and logits are computed for them alone.
    read = [(*row.prompt, *row.answer)[:-1] for row in rows]
    width, longest = max(map(len, read)), max(len(row.answer) for row in rows)
    ids_B_T = torch.full((len(rows), width), pad_id)
    mask_B_T = torch.zeros((len(rows), width), dtype=torch.long)
    labels_B_T = torch.full((len(rows), longest), _IGNORED)
    for at, (row, ids) in enumerate(zip(rows, read, strict=True)):
        ids_B_T[at, width - len(ids) :] = torch.tensor(ids)
        mask_B_T[at, width - len(ids) :] = 1
        labels_B_T[at, longest - len(row.answer) :] = torch.tensor(row.answer)
    out = model(
        input_ids=ids_B_T.to(device),
        attention_mask=mask_B_T.to(device),
        position_ids=(mask_B_T.cumsum(1) - 1).clamp(min=0).to(device),
        use_cache=False,
        logits_to_keep=longest,
    )
    return out.logits, labels_B_T.to(device)


def _trainable(factors: weights.Factors, device: torch.device) -> weights.Factors:
    def own(matrix: torch.Tensor) -> torch.Tensor:
        return matrix.detach().to(device, torch.float32, copy=True).requires_grad_()

    return weights.Factors(own(factors.a), own(factors.b))


def _difference(now: weights.Factors, was: weights.Factors, share: float) -> weights.Factors:
    return weights.Factors(
        (now.a.detach().cpu() - was.a) / share, (now.b.detach().cpu() - was.b) / share
    )


def _endless(items: Sequence[Lesson], rng: random.Random) -> Iterator[Lesson]:
    """All in random order, again and again, each time in another one."""
    while items:
        yield from rng.sample(items, len(items))
