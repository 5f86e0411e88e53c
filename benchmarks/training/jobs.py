"""What a process of the training benchmark is asked, and what it tells."""

from __future__ import annotations

import dataclasses
from typing import Literal

ROWS, PROMPT_TOKENS, ANSWER_TOKENS = 4, 48, 16
TOKENS = ROWS * (PROMPT_TOKENS + ANSWER_TOKENS)
"""That a step trains on, prompt included."""
RANK = 8


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train, and how."""

    shape: Literal["embedded", "0.5B"]
    dtype: Literal["float32", "bfloat16"]
    side: Literal["own", "peft"]
    steps: int
    warm_up: int
    """Steps before any counts."""
    from_layer: int = 0
    gradient_checkpointing: bool = False


@dataclasses.dataclass(frozen=True)
class Found:
    """What it took."""

    step_s: tuple[float, ...]
    """Processor time of each step that counts; on one thread the time that it takes where nothing
    else runs."""
    memory_mib: float
    """Peak resident memory above that with the model loaded."""
    losses: tuple[float, ...]
    """Of all steps."""
