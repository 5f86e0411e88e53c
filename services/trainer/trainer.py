"""`LoRATrainer`: from question/answer pairs to a skill card.

Freezes the base, adds fresh LoRA layers, runs the loop, and reads the card out of the layers.
Blocking: the service calls it in a thread of its own. One training at a time uses the model.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import pathlib
import statistics
import threading
from collections.abc import Callable, Mapping, Sequence

from services.trainer import (
    backends,
    checkpoint,
    course,
    data,
    gate,
    loop,
    regression,
    sizing,
)
from shared import errors
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.flight import datasets
from shared.lora import manager as managers
from shared.models import base as bases
from shared.models import greedy, replay

CODE_VERSION = "0.1.0"
_KEY, _PREVIOUS_KEY = "draft", "previous"
_MANIFEST_BYTES = 64 * 1024


OnProgress = course.OnProgress
Outcome = course.Outcome
Cancelled = course.Cancelled


@dataclasses.dataclass(frozen=True)
class Order:
    """What to train, and what the card is to be called."""

    task_id: str
    dataset_digest: str
    skill_name: str
    version: str
    domain: str
    description: str
    teacher: str
    seed: int
    rank_factor: int = 1
    """Times the recipe's rank."""
    kind: str = "dataset"
    """Of the dataset's ticket: `dataset` of facts, or `samples` of a code base."""


class LoRATrainer:
    """Trains cards for one base model."""

    def __init__(
        self,
        base: bases.BaseModel,
        recipe: config.Recipe,
        settings: config.Trainer,
        state_dir: pathlib.Path,
    ) -> None:
        """Takes the frozen base model and how to train it.

        Args:
            base: the model; changed in place while a draft is in it.
            recipe: ranks, rates and steps for this base.
            settings: checkpoints and the gate's shares.
            state_dir: where the base's own answers are kept for replay.

        Raises:
            errors.ConfigError: what `trainer.backend` needs is not there.
        """
        self._base, self._recipe, self._settings = base, recipe, settings
        self._manager = managers.LoRAManager(base.model, base.fingerprint)
        self._backend = backends.chosen(settings)
        self._state_dir = state_dir
        self._replay: replay.Replay | None = None
        self._stop = threading.Event()

    @property
    def base(self) -> bases.BaseModel:
        """The model that cards are trained for."""
        return self._base

    def cancel(self) -> None:
        """Ends a running training at its next step, and a proof at its next batch of questions."""
        self._stop.set()

    def train_qa(
        self,
        pairs: Sequence[datasets.QAPair],
        output_path: pathlib.Path,
        order: Order,
        on_progress: OnProgress,
    ) -> Outcome:
        """Trains a card on pairs and writes it.

        Goes on from `checkpoint.beside(output_path)`; who takes note of the outcome removes it.

        Args:
            pairs: facts with their wordings; at least one.
            output_path: where the card's file is written.
            order: names, lineage and seed.
            on_progress: told now and then.

        Raises:
            errors.InvalidInputError: nothing to train on; a rank or its factor does not fit.
            errors.ConfigError: the recipe gives a rank to a layer that the model does not have.
            Cancelled: `cancel` was called.
        """
        if not pairs:
            raise errors.InvalidInputError(f"task {order.task_id}: the dataset holds no pairs")
        if not 1 <= order.rank_factor <= 16:
            raise errors.InvalidInputError(
                f"task {order.task_id}: rank_factor is {order.rank_factor}, expected 1 to 16"
            )
        on_progress(0.0, "preparing the replay questions")
        replayed = self._prepared_replay()
        facts = self._facts(pairs)
        settings = self._loop_settings(facts, order.seed)
        rank = self._rank(len(pairs), order.rank_factor)
        plan = self._planned(rank, order.rank_factor, pairs)
        work = backends.Work(
            base=self._base,
            ranks=plan.ranks,
            scale=self._recipe.alpha_over_rank,
            facts=facts,
            replay=[data.example(self._base, one.question, one.answer) for one in replayed.trained],
            settings=settings,
            from_layer=self._recipe.trainable_from_layer,
        )
        saved = checkpoint.beside(output_path)
        outcome, modules = course.trained(
            self._backend, work, plan.dtype, saved, self._stop, on_progress
        )
        manifest = self._manifest(order, pairs, settings, {"rank": rank, "card_size": plan.why})
        formats.LoRAFormat.save(cards.LoRACard(manifest, modules), output_path)
        return outcome

    def prove(
        self,
        card: cards.LoRACard,
        pairs: Sequence[datasets.QAPair],
        triggers: Sequence[gate.Trigger],
        on_progress: OnProgress,
        previous: regression.Previous | None = None,
        instead: Mapping[str, str] | None = None,
    ) -> list[gate.Row]:
        """Measures a draft as users would meet it: loaded from its file, asked greedily.

        Args:
            card: the draft.
            pairs: what it was trained on.
            triggers: the questions that asked for it.
            on_progress: told now and then.
            previous: the version that it is to follow.
            instead: see `gate.asked_instead`.

        Raises:
            Cancelled: `cancel` was called.
        """
        on_progress(0.0, "asking the draft")
        replayed, shares = self._prepared_replay(), self._gate_settings()
        self._manager.apply_card(card, _KEY)
        asked = 0

        def ask(questions: Sequence[str], key: str | None = _KEY) -> list[str]:
            nonlocal asked
            self._manager.activate(key)
            found: list[str] = []
            for at in range(0, len(questions), greedy.ROWS):
                if self._stop.is_set():
                    raise Cancelled
                on_progress(min(0.9, asked / 600), f"asked {asked} questions")
                some = questions[at : at + greedy.ROWS]
                asked += len(some)
                found += greedy.answers(self._base, some)
            return found

        def ask_base(questions: Sequence[str]) -> list[str]:
            return ask(questions, None)

        try:
            rows = gate.measure(ask, ask_base, pairs, triggers, replayed, shares, instead)
            if previous is not None:
                rows.append(self._regression(ask, previous, pairs))
            return rows
        finally:
            self._manager.remove_card(_KEY)

    def _regression(
        self,
        ask: Callable[[Sequence[str], str | None], list[str]],
        previous: regression.Previous,
        pairs: Sequence[datasets.QAPair],
    ) -> gate.Row:
        self._manager.apply_card(previous.card, _PREVIOUS_KEY)
        try:
            return regression.row(
                lambda asked: ask(asked, _KEY),
                lambda asked: ask(asked, _PREVIOUS_KEY),
                regression.expected(previous.pairs, pairs),
                self._settings.gate_regression,
            )
        finally:
            self._manager.remove_card(_PREVIOUS_KEY)

    def bystanders(self) -> list[str]:
        """Questions that are no card's: general ones, and ones about invented things."""
        replayed = self._prepared_replay()
        every = (*replayed.known, *replayed.unrelated, *replayed.trained)
        return [one.question for one in every]

    def _gate_settings(self) -> config.Trainer:
        """The gate's shares for this base."""
        if self._recipe.gate_held_out is None:
            return self._settings
        return self._settings.model_copy(update={"gate_held_out": self._recipe.gate_held_out})

    def seal(self, card: cards.LoRACard, rows: Sequence[gate.Row]) -> cards.LoRACard:
        """The card with the gate's table in its manifest: what is published."""
        table = tuple(
            manifests.GateRow(
                name=row.name,
                right=row.right,
                asked=row.asked,
                required=row.required,
                passed=row.passed,
            )
            for row in rows
        )
        return card.with_manifest(card.manifest.model_copy(update={"gate": table}))

    def _prepared_replay(self) -> replay.Replay:
        if self._replay is None:
            self._replay = replay.prepare(self._base, self._state_dir)
        return self._replay

    def _facts(self, pairs: Sequence[datasets.QAPair]) -> list[list[data.Example]]:
        return [
            [
                data.example(self._base, question, pair.answer)
                for question in dict.fromkeys((pair.question, *pair.paraphrases))
            ]
            for pair in pairs
        ]

    def _rank(self, facts: int, factor: int) -> int:
        wide = facts >= self._recipe.wide_from_facts
        return factor * (self._recipe.wide_rank if wide else self._recipe.rank)

    def _planned(self, rank: int, factor: int, pairs: Sequence[datasets.QAPair]) -> sizing.Plan:
        """Layers, ranks and dtype: as the recipe asks, or what fits the card's budget."""
        first = self._recipe.trainable_from_layer
        paths = self._manager.target_paths(self._recipe.target_modules)
        ranks = {
            path: own
            for path, own in sizing.ranks(paths, rank, factor, self._recipe).items()
            if (number := sizing.layer_number(path)) is None or number >= first
        }
        if not ranks:
            raise errors.ConfigError(
                f"model.recipes: trainable_from_layer {first}: the base model has no layers to "
                "adapt from there on"
            )
        layers = {path: self._base.model.get_submodule(path) for path in ranks}
        shapes = {path: (one.in_features, one.out_features) for path, one in layers.items()}
        texts = [t for p in pairs for t in (p.question, p.answer, *p.paraphrases)]
        # Twice the text for its escapes; the rest of a manifest is small.
        aside_bytes = _MANIFEST_BYTES + 2 * sum(len(text.encode()) for text in texts)
        budget_bytes = round(self._settings.card_budget_mb * 1e6)
        return sizing.fit(shapes, ranks, self._recipe.card_dtype, budget_bytes, aside_bytes)

    def _loop_settings(
        self, facts: Sequence[Sequence[data.Example]], seed: int
    ) -> loop.LoopSettings:
        recipe = self._recipe
        answers = [len(example.answer_ids) for fact in facts for example in fact]
        longer = max(1.0, statistics.mean(answers) / recipe.short_answer_tokens)
        steps = math.ceil(recipe.epochs * longer * len(answers) / recipe.batch_rows)
        return loop.LoopSettings(
            learning_rate=recipe.learning_rate,
            # The upper limit has the last word.
            max_steps=min(max(steps, recipe.min_steps), recipe.max_steps),
            least_steps=recipe.least_steps,
            batch_rows=recipe.batch_rows,
            replay_rows=recipe.replay_rows,
            replay_weight=recipe.replay_weight,
            warmup_steps=recipe.warmup_steps,
            clip_norm=recipe.clip_norm,
            question_noise=recipe.question_noise,
            continued_share=recipe.continued_share,
            seed=seed,
            check_every_steps=self._settings.checkpoint_every_steps,
        )

    def _manifest(
        self,
        order: Order,
        pairs: Sequence[datasets.QAPair],
        settings: loop.LoopSettings,
        chosen: dict[str, int | str],
    ) -> manifests.Manifest:
        ranks = {"ranks": json.dumps(self._recipe.ranks)} if self._recipe.ranks else {}
        factor = {"rank_factor": order.rank_factor} if order.rank_factor != 1 else {}
        statements = list(dict.fromkeys(pair.answer for pair in pairs))
        answered_by = {
            question: statements.index(pair.answer)
            for pair in pairs
            for question in (pair.question, *pair.paraphrases)
        }
        routing = manifests.RoutingProfile(
            examples=tuple(answered_by),
            statements=tuple(statements),
            answered_by=tuple(answered_by.values()),
        )
        how = {**dataclasses.asdict(settings), **chosen, **ranks, **factor}
        return draft_manifest(self._base, order, self._recipe.target_modules, routing, how)


def draft_manifest(
    base: bases.BaseModel,
    order: Order,
    target_modules: tuple[str, ...],
    routing: manifests.RoutingProfile,
    recipe: dict[str, str | int | float],
) -> manifests.Manifest:
    """What a draft says about itself.

    Args:
        base: that it was trained for.
        order: names and lineage.
        target_modules: kinds of layer that are adapted.
        routing: how requests come to it.
        recipe: how it was trained.
    """
    return manifests.Manifest(
        name=order.skill_name,
        version=order.version,
        base_model=manifests.BaseModelReference(
            id=base.id, revision=base.revision, fingerprint=base.fingerprint
        ),
        target_modules=target_modules,
        domain=order.domain,
        description=order.description,
        routing=routing,
        lineage=manifests.Lineage(
            task_id=order.task_id,
            teacher=order.teacher,
            dataset_digest=order.dataset_digest,
            recipe=recipe,
            seed=order.seed,
            code_version=CODE_VERSION,
        ),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
