"""Settings of how cards are trained and what they must prove.

See `shared.settings`.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from shared import codebase_settings, sections


class Round(sections.Section):
    """How an agent's round of learning goes on one base model; see `shared.hierarchy.learning`."""

    steps: sections.Count = 10
    """Of a round."""
    rows: sections.Count = 8
    """Questions of feedback a step,"""
    rehearsed_rows: int = pydantic.Field(default=4, ge=0)
    """questions that were learned before,"""
    held_rows: int = pydantic.Field(default=2, ge=0)
    """and others, on which the base's own answers are to stay."""
    learning_rate: sections.Positive = 1e-4
    """AdamW's, of a layer without inertia; the embedded base wants 1e-3."""


class Recipe(sections.Section):
    """How cards are trained, and how agents learn, on one base model."""

    rank: sections.Count = 8
    """Columns of every A and rows of every B, up to `wide_from_facts` facts."""
    alpha_over_rank: sections.Positive = 2.0
    """The scale of a card is alpha / rank."""
    wide_rank: sections.Count = 16
    """The rank for larger skills."""
    wide_from_facts: sections.Count = 16
    """From this many facts on `wide_rank` is used."""
    target_modules: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip
    """Kinds of layer that are adapted."""
    ranks: dict[str, sections.Count] = pydantic.Field(default={})
    """Ranks of some of them, by kind (`q_proj`) or by full path, which goes before the kind;
    whatever is not named has `rank` or `wide_rank`."""
    learning_rate: sections.Positive = 1e-4
    """AdamW; the embedded base wants 4e-3, real ones 1e-4 to 1e-3."""
    epochs: sections.Positive = 25.0
    """Passes over all questions of the skill, as far as the steps are between these:"""
    min_steps: sections.Count = 120
    """Training takes no fewer,"""
    max_steps: sections.Count = 500
    """and no more; it ends earlier when every training answer is right."""
    short_answer_tokens: sections.Count = 24
    """Where answers are longer on average, the passes are more in proportion: what is learned by
    heart takes steps by its length."""
    least_steps: sections.Count = 120
    """Training goes on until here even when every training answer is right."""
    batch_rows: sections.Count = 16
    """Questions a step."""
    replay_rows: int = pydantic.Field(default=6, ge=0)
    """Replayed questions a step, on which the card is held to the base's own answers."""
    replay_weight: float = pydantic.Field(default=1.0, ge=0)
    """Weight of their Kullback-Leibler term."""
    warmup_steps: sections.Count = 5
    """Steps until the full learning rate."""
    clip_norm: sections.Positive = 1.0
    """Gradients are clipped to this norm."""
    question_noise: float = pydantic.Field(default=0.0, ge=0)
    """Noise on the question's token embeddings at the beginning, as a share of their size; it
    fades to none with the learning rate."""
    continued_share: sections.Share = 0.0
    """Share of the rows that only teach how an answer goes on once it has begun."""
    gate_held_out: sections.Share | None = None
    """In place of `trainer.gate_held_out`, for cards of this base model."""
    card_dtype: Literal["float32", "float16", "bfloat16"] = "float16"
    """How the card keeps its weights."""
    trainable_from_layer: int = pydantic.Field(default=0, ge=0)
    """Decoder layers below are left as they are: no backward pass goes through them, and the own
    loop keeps their outputs. Faster, and worse at new facts the higher it is."""
    round: Round = Round()
    """How agents learn what they are told."""

    @pydantic.model_validator(mode="after")
    def _ranks_are_of_targets(self) -> Recipe:
        """What is not adapted has no rank: such a key is misspelt."""
        for key in self.ranks:
            if key.rpartition(".")[2] not in self.target_modules:
                raise ValueError(f"ranks: {key} is not of a kind among target_modules")
        return self


class Trainer(sections.Section):
    """Trains and proves cards."""

    address: sections.Address = "127.0.0.1:7404"
    """Where it listens."""
    addresses: tuple[sections.Address, ...] = ()
    """Where the trainers are that the factory hands work to; empty for `address` alone."""
    threads: sections.Count = 2
    """Threads of one training; it gives way to whoever answers questions."""
    seed: int = 0
    """Added to the seed of every training."""
    checkpoint_every_steps: sections.Count = 20
    """A killed training goes on from its last checkpoint."""
    backend: Literal["own", "peft", "unsloth"] = "own"
    """Who computes a training: the own loop, PEFT (`pip install '.[peft]'`), or Unsloth (an NVIDIA
    GPU and its package)."""
    device: str = "cpu"
    """Where the model is trained and proved: `cpu`, `cuda` or `cuda:NUMBER`."""
    quantization: Literal["none", "nf4"] = "none"
    """How the frozen base's linear layers are kept while cards are trained: nf4 is 4-bit normal
    float, made for CUDA (`pip install '.[quantized]'`)."""
    gradient_checkpointing: bool = False
    """Keep only what enters each decoder layer and compute the rest twice: a third slower, for
    bases that would not fit otherwise."""
    card_budget_mb: sections.Positive = 10.0
    """Megabytes (10^6 bytes) that a card's file may take: dtype, ranks and layers are cut until it
    fits, and the card's lineage says how."""
    specialist: codebase_settings.Specialist = codebase_settings.Specialist()
    """Cards of code bases."""
    gate_before: sections.Share = 0.5
    """Share of the triggering questions that the bare base must fail: what it answers already
    needs no card. Where a document was taught, of the questions of its facts."""
    gate_triggers: sections.Share = 1.0
    """Share of the triggering questions that a card must answer right."""
    gate_trained: sections.Share = 0.9
    """Share of the training questions."""
    gate_held_out: sections.Share = 0.5
    """Share of the rewordings it never saw, asked as nodes ask (`inference.query_rewriting`)."""
    gate_implications: sections.Share = 0.5
    """Share of such rewordings about what follows from the facts, asked in the same way."""
    gate_contrasts: sections.Share = 0.7
    """Share of the near misses to which no fact's answer may come."""
    gate_regression: sections.Share = 0.95
    """Share of what the version before was taught and still answers, where there is one."""
    gate_known: sections.Share = 0.75
    """Share of known questions still answered as the base answers them, with the card active
    (the router sends them past the card)."""
    gate_unrelated: sections.Share = 0.85
    """Share of unrelated questions still answered as the base answers them."""
    gate_routed: sections.Share = 1.0
    """Share of the triggering questions that the router must send to the card."""
    gate_elsewhere: sections.Share = 0.96
    """Share of general and invented questions that it must not send to the card."""
    gate_other_cards: sections.Share = 0.97
    """Share of other cards' questions, in wordings unknown to it, that must still find them."""
