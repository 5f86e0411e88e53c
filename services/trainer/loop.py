"""The training loop: gradients for the LoRA matrices alone, replay against forgetting, early stop.

A plain card wrecks whatever it was not asked about. So every step also holds the card, by
Kullback-Leibler divergence, to the base model's own next-token distribution on replayed questions
(Hinton et al. 2015; Li and Hoiem 2016, "Learning without Forgetting").
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from services.trainer import batches, data
from shared.lora import linear

_BASE_ANSWERS_FLOATS = 32 * 1024 * 1024
"""128 MiB of the base's replayed answers are kept; a large vocabulary's are computed each time."""


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


@dataclasses.dataclass(frozen=True)
class _Read:
    """What the model makes of a batch."""

    logits_N_V: torch.Tensor
    """Of the answers' tokens, (tokens, vocabulary), float32."""
    rows_N: torch.Tensor
    """The row of each."""
    labels_N: torch.Tensor
    """The token that is right."""


class Loop:
    """One training, stepwise, so that it can be watched, saved and resumed."""

    def __init__(
        self,
        model: Any,
        adapters: Sequence[linear.Adapter],
        facts: Sequence[Sequence[data.Example]],
        replay: Sequence[data.Example],
        pad_id: int,
        settings: LoopSettings,
        switch_card: Callable[[bool], None],
    ) -> None:
        """Prepares optimiser and batches.

        Args:
            model: the causal LM with the fresh adapters active.
            adapters: what is trained.
            facts: each in all its wordings, with the answer to learn; at least one.
            replay: questions with the base model's own answers.
            pad_id: padding token.
            settings: the recipe.
            switch_card: called with False to reach the bare base, with True to come back.
        """
        self._model, self._pad = model, pad_id
        self._settings = settings
        self._examples = [example for fact in facts for example in fact]
        self._has_replay = bool(replay) and settings.replay_rows > 0
        self._switch_card = switch_card
        self._parameters = [p for a in adapters for p in (a.lora_a, a.lora_b)]
        self._optimiser = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=0.0
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
        self._step, self._loss = 0, float("nan")

    def run(self) -> Iterator[Progress]:
        """Trains until every answer is right or the steps are used up, yielding at every step.

        Of a restored training the first that is yielded is where it stands: it may be its end.
        """
        settings, right = self._settings, None
        if self._step:
            right = self._measured()
            yield Progress(self._step, settings.max_steps, self._loss, right, checked=False)
        while self._step < settings.max_steps and right != 1.0:
            self._loss = self._train_step()
            self._step += 1
            last = self._step == settings.max_steps
            checked = last or self._step % settings.check_every_steps == 0
            if checked:
                right = self._measured()
            yield Progress(self._step, settings.max_steps, self._loss, right, checked)

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
        right = 0
        for at in range(0, len(self._examples), 64):
            batch = data.collate(self._examples[at : at + 64], self._pad)
            read = self._read(batch)
            wrong_rows = read.rows_N[read.logits_N_V.argmax(-1) != read.labels_N].unique()
            right += len(batch.labels) - len(wrong_rows)
        return right / len(self._examples)

    def _measured(self) -> float | None:
        """The share that is right, where it matters: it takes as long as two steps."""
        may_end = self._step >= min(self._settings.least_steps, self._settings.max_steps)
        return self.share_right() if may_end else None

    def _train_step(self) -> float:
        settings = self._settings
        batch = data.collate(next(self._batches), self._pad)
        share = _rate_share(self._step, settings)
        # Noise fades with the learning rate: what it blurs is told apart in the end.
        noise = settings.question_noise * share
        read = self._read(batch, noise)
        loss = F.cross_entropy(read.logits_N_V, read.labels_N)
        total = loss
        if self._has_replay:
            replayed = next(self._replays)
            base_N_V = self._base_log_probabilities(replayed)
            replay = data.collate(replayed, self._pad)
            card_N_V = self._read(replay).logits_N_V.log_softmax(-1)
            divergence = F.kl_div(card_N_V, base_N_V, log_target=True, reduction="batchmean")
            total = total + settings.replay_weight * divergence
        self._optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, settings.clip_norm)
        for group in self._optimiser.param_groups:
            group["lr"] = settings.learning_rate * share
        self._optimiser.step()
        return float(loss.detach())

    @contextlib.contextmanager
    def _bare(self) -> Iterator[None]:
        """The bare base, without the card."""
        self._switch_card(False)
        try:
            yield
        finally:
            self._switch_card(True)

    @torch.no_grad()
    def _base_log_probabilities(self, replayed: Sequence[data.Example]) -> torch.Tensor:
        """The bare base's distributions over the answers' tokens, (N, vocabulary).

        They never change, so they are kept as long as there is room for them.
        """
        missing = [item for item in dict.fromkeys(replayed) if item not in self._base_answers]
        if missing:
            with self._bare():
                logits_N_V = self._read(data.collate(missing, self._pad)).logits_N_V
            counts = [len(item.answer_ids) for item in missing]
            parts = logits_N_V.log_softmax(-1).split(counts)
            found = dict(zip(missing, parts, strict=True))
            if self._base_answers_room >= logits_N_V.numel():
                self._base_answers_room -= logits_N_V.numel()
                self._base_answers |= {item: part.clone() for item, part in found.items()}
        else:
            found = {}
        return torch.cat([
            found[item] if item in found else self._base_answers[item] for item in replayed
        ])  # fmt: skip

    def _read(self, batch: data.Batch, noise: float = 0.0) -> _Read:
        """Runs the model; logits are computed where answers are predicted, nowhere else."""
        embeds_B_T_H = self._model.get_input_embeddings()(batch.input_ids)
        if noise:
            in_question_B_T = torch.arange(embeds_B_T_H.shape[1]) < batch.first[:, None]
            strength = noise * embeds_B_T_H.pow(2).mean().sqrt()
            shaken = torch.randn(embeds_B_T_H.shape, generator=self._noise) * strength
            embeds_B_T_H = embeds_B_T_H + shaken * in_question_B_T[..., None]
        out = self._model.base_model(
            inputs_embeds=embeds_B_T_H,
            attention_mask=batch.attention_mask,
            use_cache=False,
        )
        counts_B_T = batch.labels != data.IGNORED
        logits_N_V = self._model.get_output_embeddings()(out.last_hidden_state[counts_B_T])
        return _Read(
            logits_N_V=logits_N_V.float(),
            rows_N=counts_B_T.nonzero()[:, 0],
            labels_N=batch.labels[counts_B_T],
        )


def _rate_share(step: int, settings: LoopSettings) -> float:
    """Warm-up, then linear decay to zero."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    return warm * (settings.max_steps - step) / settings.max_steps
