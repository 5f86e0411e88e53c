"""The training loop: gradients for the LoRA matrices alone, replay against forgetting, early stop.

Knows nothing about how the model computes: that is its `network.Network`.

A plain card wrecks whatever it was not asked about. So every step also holds the card, by
Kullback-Leibler divergence, to the base model's own next-token distribution on replayed questions
(Hinton et al. 2015; Li and Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from services.trainer import batches, data, network

_BASE_ANSWERS_FLOATS = 32 * 1024 * 1024
"""128 MiB of the base's replayed answers are kept; what is beyond is computed each time."""


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """What decides the course of a training; belongs to the base model's entry in config.yaml."""

    learning_rate: float
    max_steps: int
    least_steps: int
    """Training goes on until here even when every answer is right: wordings that were never
    trained on profit."""
    batch_rows: int
    replay_rows: int
    replay_weight: float
    warmup_steps: int
    clip_norm: float
    question_noise: float
    """Noise on the question's token embeddings, as a share of their root mean square (NEFTune,
    Jain et al. 2023): a wording never seen lies near those that were."""
    continued_share: float
    """Of the rows an answer is gone on with behind a question of something else, see `batches`."""
    seed: int
    check_every_steps: int = 20
    pass_overhead_tokens: int = 64
    """See `data.grouped`."""
    most_measured: int = 0
    """Examples of which the share that is right is measured, evenly spaced; 0: all."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: int
    max_steps: int
    loss: float
    right: float | None
    """Share of training answers whose every token is predicted right, when last measured: at the
    checks from `least_steps` on, where it may end the training, and at its end."""
    checked: bool
    """Whether this step was a check: the time to save and to tell."""
    tokens: int = dataclasses.field(default=0, compare=False)
    """Read with gradients since this process began, padding not counted."""


class Loop:
    """One training, stepwise, so that it can be watched, saved and resumed."""

    def __init__(
        self,
        net: network.Network,
        facts: Sequence[Sequence[data.Example]],
        replay: Sequence[data.Example],
        pad_id: int,
        settings: LoopSettings,
    ) -> None:
        """Prepares optimiser and batches.

        Args:
            net: the model with the fresh adapters active.
            facts: each in all its wordings, with the answer to learn; at least one.
            replay: questions with the base model's own answers.
            pad_id: padding token.
            settings: the recipe.
        """
        self._net, self._pad = net, pad_id
        self._settings = settings
        self._examples = [example for fact in facts for example in fact]
        self._has_replay = bool(replay) and settings.replay_rows > 0
        self._parameters = list(net.parameters)
        self._device = self._parameters[0].device
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=0.0, fused=True
        )
        self._batches = batches.by_fact(
            facts,
            [*self._examples, *replay],
            settings.batch_rows,
            settings.seed,
            settings.continued_share,
        )
        self._replays = batches.cycle(replay, settings.replay_rows, settings.seed + 1)
        self._noise = torch.Generator().manual_seed(settings.seed + 2)
        self._base_answers: dict[data.Example, torch.Tensor] = {}
        self._base_answers_room = _BASE_ANSWERS_FLOATS
        self._step, self._loss, self._tokens = 0, float("nan"), 0

    def run(self) -> Iterator[Progress]:
        """Trains until every answer is right or the steps are used up, yielding at every step.

        Of a restored training the first that is yielded is where it stands: it may be its end.
        """
        settings, right = self._settings, None
        if self._step:
            right = self._measured()
            yield self._progress(right, checked=False)
        while self._step < settings.max_steps and right != 1.0:
            self._loss = self._train_step()
            self._step += 1
            last = self._step == settings.max_steps
            checked = last or self._step % settings.check_every_steps == 0
            if checked:
                right = self._measured()
            yield self._progress(right, checked)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after a crash, see `checkpoint.Checkpoint`."""
        return {
            "step": self._step,
            "loss": self._loss,
            "noise": self._noise.get_state(),
            "parameters": [p.detach() for p in self._parameters],
            "optimiser": self._optimiser.state_dict(),
        }

    def fits(self, state: dict[str, Any]) -> bool:
        """Whether a state is of matrices of these shapes; a recipe may change in between."""
        return [p.shape for p in self._parameters] == [p.shape for p in state["parameters"]]

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        with torch.no_grad():
            for parameter, saved in zip(self._parameters, state["parameters"], strict=True):
                parameter.copy_(saved)
        groups = self._optimiser.state_dict()["param_groups"]
        self._optimiser.load_state_dict({"state": state["moments"], "param_groups": groups})
        for _ in range(self._step, state["step"]):
            next(self._batches)
            next(self._replays, None)
        self._noise.set_state(state["noise"])
        self._step, self._loss = state["step"], state["loss"]

    @torch.no_grad()
    def share_right(self) -> float:
        """Share of training examples whose every answer token is the likeliest one."""
        right, rows = 0, self._settings.batch_rows
        most = self._settings.most_measured or len(self._examples)
        every = -(-len(self._examples) // most)
        examples = sorted(self._examples[::every], key=lambda item: item.tokens)
        for at in range(0, len(examples), rows):
            batch = self._batch(examples[at : at + rows])
            likeliest_N = self._net.likeliest(self._net.answers(batch, self._net.states(batch)))
            rows_N = batch.counts.nonzero()[:, 0]
            wrong_rows = rows_N[likeliest_N != batch.labels[batch.counts]].unique()
            right += len(batch.labels) - len(wrong_rows)
        return right / len(examples)

    def _progress(self, right: float | None, checked: bool) -> Progress:
        steps = self._settings.max_steps
        return Progress(self._step, steps, self._loss, right, checked, self._tokens)

    def _measured(self) -> float | None:
        """The share that is right, where it matters: it takes as long as two steps."""
        may_end = self._step >= min(self._settings.least_steps, self._settings.max_steps)
        return self.share_right() if may_end else None

    def _train_step(self) -> float:
        settings = self._settings
        share = _rate_share(self._step, settings)
        self._optimiser.zero_grad(set_to_none=True)
        # Noise fades with the learning rate: what it blurs is told apart in the end.
        loss = self._learn(next(self._batches), settings.question_noise * share)
        if self._has_replay:
            self._hold(next(self._replays))
        torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm)
        for group in self._optimiser.param_groups:
            group["lr"] = settings.learning_rate * share
        self._optimiser.step()
        return loss

    def _learn(self, rows: Sequence[data.Example], noise: float) -> float:
        """Adds the gradients of the answers' mean cross-entropy, and returns it."""
        tokens, total = sum(row.asked for row in rows), torch.zeros((), device=self._device)
        for group in data.grouped(rows, self._settings.pass_overhead_tokens):
            batch = self._batch(group)
            answers = self._net.answers(batch, self._shaken(batch, noise))
            loss = self._net.cross_entropy(answers, batch.labels[batch.counts]) / tokens
            loss.backward()
            total += loss.detach()
        self._tokens += sum(row.tokens for row in rows)
        return float(total)

    def _hold(self, rows: Sequence[data.Example]) -> None:
        """Adds the gradients of the mean divergence from the base on replayed questions."""
        tokens = sum(row.asked for row in rows)
        for group in data.grouped(rows, self._settings.pass_overhead_tokens):
            base = self._of_base(group)
            batch = self._batch(group)
            answers = self._net.answers(batch, self._net.states(batch))
            loss = self._net.divergence(answers, base) * (self._settings.replay_weight / tokens)
            loss.backward()
        self._tokens += sum(row.tokens for row in rows)

    @torch.no_grad()
    def _of_base(self, rows: Sequence[data.Example]) -> torch.Tensor:
        """What the bare base says at the answers' tokens, see `network.Network.answers`.

        It never changes, so it is kept as long as there is room for it.
        """
        missing = [item for item in dict.fromkeys(rows) if item not in self._base_answers]
        if missing:
            batch = self._batch(missing)
            with self._net.bare():
                answers = self._net.answers(batch, self._net.states(batch))
            parts = answers.split([item.asked for item in missing])
            found = dict(zip(missing, parts, strict=True))
            if self._base_answers_room >= answers.numel():
                self._base_answers_room -= answers.numel()
                self._base_answers |= {item: part.clone() for item, part in found.items()}
        else:
            found = {}
        return torch.cat([
            found[item] if item in found else self._base_answers[item] for item in rows
        ])  # fmt: skip

    def _batch(self, rows: Sequence[data.Example]) -> data.Batch:
        return data.collate(rows, self._pad).to(self._device)

    def _shaken(self, batch: data.Batch, noise: float) -> torch.Tensor:
        """What enters the trained part, with noise where the question is."""
        states_B_T_H = self._net.states(batch)
        if not noise:
            return states_B_T_H
        places_T = torch.arange(states_B_T_H.shape[1], device=self._device)
        size = states_B_T_H[batch.attention_mask.bool()].float().pow(2).mean().sqrt()
        # Drawn on the CPU, so that every device sees the same.
        shaken = torch.randn(states_B_T_H.shape, generator=self._noise).to(self._device)
        shaken *= (noise * size) * (places_T < batch.first[:, None])[..., None]
        return states_B_T_H + shaken.to(states_B_T_H.dtype)


def _rate_share(step: int, settings: LoopSettings) -> float:
    """Warm-up, then linear decay to zero."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return warm * (settings.max_steps - step) / settings.max_steps
