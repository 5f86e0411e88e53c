"""Settings of learning from repositories."""

from __future__ import annotations

import pathlib
from typing import Literal

import pydantic

from shared import sections


class Codebase(sections.Section):
    """What of a repository is taught, and how much."""

    repositories_dir: pathlib.Path = pathlib.Path("repositories")
    """Within the state folder: the git repositories in it, or linked from it, may be learned, and
    no others."""
    licences: tuple[str, ...] = (
        "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT",
        "MPL-2.0", "PSF-2.0", "Unlicense", "Zlib",
    )  # fmt: skip
    """SPDX identifiers of files that may be learned."""
    unlicensed: bool = True
    """Whether files of no stated licence may be learned: your own code often has none."""
    most_file_kb: sections.Count = 512
    """Larger files are left out."""
    most_samples: sections.Count = 2_000
    """The most useful are taken."""
    held_out_share: sections.Share = 0.15
    """Of the definitions, kept from training with all their samples, to prove what was learned."""
    history_commits: sections.Count = 500
    """So many commits are searched for pairs of before and after."""
    teacher_definitions: int = pydantic.Field(default=100, ge=0)
    """The most useful ones, about which a language model as the teacher is asked: a call each."""


class Specialist(sections.Section):
    """How a card is trained on the samples of a code base."""

    backend: Literal["auto", "own", "peft", "unsloth"] = "auto"
    """Who computes: auto takes Unsloth where a GPU and the package are, else the own loop."""
    method: Literal["auto", "lora", "qlora"] = "auto"
    """lora keeps the base as it is; qlora keeps it in 4 bits (nf4) on a GPU. auto takes qlora where
    the base does not fit the GPU's memory otherwise."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto takes a GPU where there is one."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    """Kinds of layer that are adapted."""
    rank: sections.Count = 16
    """Columns of every A and rows of every B."""
    learning_rate: sections.Positive | None = None
    """None: that of the base model's recipe."""
    epochs: sections.Positive = 3.0
    """Passes over all examples, as far as the time on a CPU allows."""
    min_steps: sections.Count = 150
    """Small code bases are passed over more often, until there are so many steps."""
    context_tokens: sections.Count = 512
    """Of one example, prompt and output; no more than the base has positions."""
    cpu_minutes: sections.Positive = 4.0
    """What a training may take on a CPU, by an estimate of its arithmetic: steps are cut until it
    fits. A GPU has no such limit."""
    whole_texts: bool = True
    """Whether definitions are also learned as texts of their own, with nothing before them."""
    gate_perplexity: sections.Share = 0.2
    """By this share the card must lower the bare base's perplexity on held-out definitions."""
    most_cursors: sections.Count = 400
    """Places in held-out definitions at which the proof asks for a completion."""
