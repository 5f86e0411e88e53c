"""`TrainingManager`: from samples of a code base to a card that completes it.

Looks at the machine, chooses how to train, says why, trains, and proves on definitions that were
kept from training. Blocking: the workshop calls it in the thread that uses the model.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from services.trainer import (
    backends,
    checkpoint,
    course,
    data,
    gate,
    loop,
    sizing,
    trainer,
)
from services.trainer.specialist import hardware as machines
from services.trainer.specialist import lessons, proof
from services.trainer.specialist import plan as plans
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import samples as flight
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models import greedy, replay

_KEY = "specialist draft"
_MANIFEST_BYTES = 16 * 1024
_MOST_MEASURED = 64
"""Examples of which the end of a training tells how many it has by heart."""
_ANSWERS_AT_ONCE = greedy.ROWS


class TrainingManager:
    """Trains and proves the cards of code bases, for one base model."""

    def __init__(
        self,
        base: bases.BaseModel,
        recipe: config.Recipe,
        settings: config.Trainer,
        state_dir: pathlib.Path,
        machine: Callable[[], machines.Hardware] = machines.found,
    ) -> None:
        """Takes the frozen base model and how to train it.

        Args:
            base: the model; changed in place while a draft is in it.
            recipe: learning rate and replay for this base.
            settings: `specialist`, checkpoints, the gate's shares.
            state_dir: where the base's own answers are kept for replay.
            machine: looks at the hardware.
        """
        self._base, self._recipe, self._settings = base, recipe, settings
        self._own = settings.specialist
        self._state_dir, self._machine = state_dir, machine
        self._manager = managers.LoRAManager(base.model, base.fingerprint)
        self._shape = plans.shape(base.model, base.id == bases.EMBEDDED)
        self._context_tokens = plans.context_tokens(self._shape, self._own)
        self._replay: replay.Replay | None = None
        self._stop = threading.Event()

    def hardware(self) -> machines.Hardware:
        """What this machine has."""
        return self._machine()

    def cancel(self) -> None:
        """Ends a running training at its next step, and a proof at its next batch."""
        self._stop.set()

    def taught(self, samples: Sequence[flight.Sample], questions: bool = True) -> lessons.Lessons:
        """The training examples of samples, with or without those that answer questions."""
        whole = self._own.whole_texts
        return lessons.lessons(self._base, samples, self._context_tokens, whole, questions)

    def chosen(self, samples: Sequence[flight.Sample]) -> tuple[lessons.Lessons, plans.Plan]:
        """What is learned, and how.

        Where there is no time for one pass over everything, code alone is learned: an example of
        it has more tokens to learn for those that are read.

        Raises:
            errors.ConfigError: what the settings ask for can't be done on this machine.
        """
        taught = self.taught(samples)
        if not taught.examples:
            return taught, self.plan(taught)
        plan = self.plan(taught)
        if plan.steps * plan.batch_rows >= len(taught.examples):
            return taught, plan
        code = self.taught(samples, questions=False)
        if not code.examples:
            return taught, plan
        plan = self.plan(code)
        left = len(taught.examples) - len(code.examples)
        why = f"{plan.why}; {left} examples that answer questions are left out: no time for them"
        return code, dataclasses.replace(plan, why=why)

    def plan(self, taught: lessons.Lessons, machine: machines.Hardware | None = None) -> plans.Plan:
        """How these lessons are learned on this machine, or on one that is described.

        Raises:
            errors.ConfigError: what the settings ask for can't be done there.
        """
        many = len(taught.examples)
        mean = sum(one.tokens for one in taught.examples) / max(1, many)
        replayed = self._replayed()
        mean_replayed = sum(one.tokens for one in replayed) / max(1, len(replayed))
        work = plans.Work(many, mean, round(self._recipe.replay_rows * mean_replayed))
        machine = machine or self.hardware()
        return plans.plan(machine, self._shape, work, self._own, self._settings.threads)

    def train(
        self,
        samples: Sequence[flight.Sample],
        output_path: pathlib.Path,
        order: trainer.Order,
        on_progress: course.OnProgress,
    ) -> course.Outcome:
        """Trains a card on samples and writes it; the same order gives the same card.

        Goes on from `checkpoint.beside(output_path)`; who takes note of the outcome removes it.

        Args:
            samples: of a code base; the held-out ones are left aside.
            output_path: where the card's file is written.
            order: names, lineage and seed.
            on_progress: told now and then.

        Raises:
            errors.InvalidInputError: nothing to train on.
            errors.ConfigError: what the settings ask for can't be done on this machine.
            course.Cancelled: `cancel` was called.
        """
        on_progress(0.0, "reading the samples")
        taught, plan = self.chosen(samples)
        if not taught.examples:
            raise errors.InvalidInputError(
                f"task {order.task_id}: of {len(samples)} samples none can be trained on: "
                f"{taught.dropped} do not fit trainer.specialist.context_tokens "
                f"({self._context_tokens}), the rest is held out"
            )
        on_progress(0.0, plan.why)
        with self._loaded(plan) as base:
            size = self._sized(base, plan, order.rank_factor)
            settings = self._loop_settings(plan, order.seed)
            work = backends.Work(
                base=base,
                ranks=size.ranks,
                scale=self._recipe.alpha_over_rank,
                facts=[[one] for one in taught.examples],
                replay=self._replayed(),
                settings=settings,
            )
            outcome, modules = course.trained(
                backends.chosen(self._backend_settings(plan)),
                work,
                size.dtype,
                checkpoint.beside(output_path),
                self._stop,
                on_progress,
            )
        how: dict[str, Any] = {
            **dataclasses.asdict(settings),
            **plan.recipe(),
            "card_size": size.why,
            "examples": len(taught.examples),
            "cut": taught.cut,
            "dropped": taught.dropped,
            "context_tokens": self._context_tokens,
        }
        routing = manifests.RoutingProfile(route=manifests.SPECIALIST_LOCAL)
        manifest = trainer.draft_manifest(self._base, order, plan.target_modules, routing, how)
        licences = sorted({one.licence for one in samples if one.licence})
        manifest = manifest.model_copy(update={"licence": " AND ".join(licences)})
        formats.LoRAFormat.save(cards.LoRACard(manifest, modules), output_path)
        return outcome

    def prove(
        self,
        card: cards.LoRACard,
        samples: Sequence[flight.Sample],
        on_progress: course.OnProgress,
    ) -> list[gate.Row]:
        """The gate's table of a draft: what it does for held-out definitions, and to all else.

        Raises:
            course.Cancelled: `cancel` was called.
        """
        bare, own, known = self.measured(card, samples, on_progress)
        return proof.rows(bare, own, known, self._own.gate_perplexity)

    def measured(
        self,
        card: cards.LoRACard,
        samples: Sequence[flight.Sample],
        on_progress: course.OnProgress,
    ) -> tuple[proof.Figures, proof.Figures, gate.Row]:
        """Held-out samples by the bare base and by the card, and the known questions by the card.

        Raises:
            course.Cancelled: `cancel` was called.
        """
        known = self._prepared_replay().known
        what = proof.asked(self._base, samples, self._context_tokens, self._own.most_cursors)
        self._manager.apply_card(card, _KEY)

        def figures(key: str | None, told: str, share: float) -> proof.Figures:
            self._manager.activate(key)

            def tick(done: int, every: int) -> None:
                if self._stop.is_set():
                    raise course.Cancelled
                on_progress(share, f"{told}: {done} of {every}")

            return proof.figures(self._base, what, self._context_tokens, tick)

        def ask(questions: Sequence[str]) -> list[str]:
            found: list[str] = []
            for at in range(0, len(questions), _ANSWERS_AT_ONCE):
                if self._stop.is_set():
                    raise course.Cancelled
                on_progress(0.8, f"asked {at} known questions")
                found += greedy.answers(self._base, questions[at : at + _ANSWERS_AT_ONCE])
            return found

        try:
            bare = figures(None, "held-out code by the bare base", 0.1)
            own = figures(_KEY, "held-out code by the card", 0.4)
            same = gate.unchanged("known", ask, known, self._settings.gate_known)
            return bare, own, same
        finally:
            self._manager.remove_card(_KEY)

    def _prepared_replay(self) -> replay.Replay:
        if self._replay is None:
            self._replay = replay.prepare(self._base, self._state_dir)
        return self._replay

    def _replayed(self) -> list[data.Example]:
        trained = self._prepared_replay().trained
        return [data.example(self._base, one.question, one.answer) for one in trained]

    @contextlib.contextmanager
    def _loaded(self, plan: plans.Plan) -> Iterator[bases.BaseModel]:
        """The base as the plan wants it: the one at hand, or loaded anew for this training.

        Loading it onto a GPU has never been run within this project.
        """
        here = next(self._base.model.parameters()).device.type == plan.device
        in_4_bits = self._settings.quantization == "nf4"
        wide = self._shape.bytes_a_weight == (4 if plan.dtype == "float32" else 2)
        as_wanted = in_4_bits if plan.method == "qlora" else wide and not in_4_bits
        if here and as_wanted:
            yield self._base
            return
        yield bases.load(
            self._base.id,
            "" if self._base.revision == bases.DEFAULT_REVISION else self._base.revision,
            plan.dtype,
            "nf4" if plan.method == "qlora" else "none",
            plan.device,
        )
        if plan.device == "cuda":
            torch.cuda.empty_cache()

    def _backend_settings(self, plan: plans.Plan) -> config.Trainer:
        return self._settings.model_copy(
            update={
                "backend": plan.backend,
                "gradient_checkpointing": plan.gradient_checkpointing,
                "quantization": "nf4" if plan.method == "qlora" else "none",
            }
        )

    def _sized(self, base: bases.BaseModel, plan: plans.Plan, factor: int) -> sizing.Plan:
        paths = self._manager.target_paths(plan.target_modules)
        layers = {path: base.model.get_submodule(path) for path in paths}
        if not layers:
            raise errors.ConfigError(
                "trainer.specialist.target_modules: the base model has no layers "
                f"{', '.join(plan.target_modules)}"
            )
        shapes = {path: (one.in_features, one.out_features) for path, one in layers.items()}
        ranks = {path: min(plan.rank * factor, *shape) for path, shape in shapes.items()}
        budget_bytes = round(self._settings.card_budget_mb * 1e6)
        return sizing.fit(shapes, ranks, self._recipe.card_dtype, budget_bytes, _MANIFEST_BYTES)

    def _loop_settings(self, plan: plans.Plan, seed: int) -> loop.LoopSettings:
        recipe = self._recipe
        return loop.LoopSettings(
            learning_rate=self._own.learning_rate or recipe.learning_rate,
            max_steps=plan.steps,
            # To the end: what has been learned by heart may still become clearer.
            least_steps=plan.steps,
            batch_rows=plan.batch_rows,
            replay_rows=recipe.replay_rows,
            replay_weight=recipe.replay_weight,
            warmup_steps=recipe.warmup_steps,
            clip_norm=recipe.clip_norm,
            question_noise=0.0,
            continued_share=0.0,
            seed=seed,
            check_every_steps=self._settings.checkpoint_every_steps,
            most_measured=_MOST_MEASURED,
        )
