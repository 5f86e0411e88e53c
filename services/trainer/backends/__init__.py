"""Who computes a training: the own loop's lean network, PEFT, or Unsloth.

The course of a training (`loop.Loop`) is the same for all: batches, replay, losses, optimiser and
seed. A backend puts adapters into the model, computes their answers, and gives A and B back.
"""

from __future__ import annotations

from services.trainer.backends import base, own, unsloth, with_peft
from shared import settings as config

Backend = base.Backend
Training = base.Training
Work = base.Work


def chosen(settings: config.Trainer) -> base.Backend:
    """The backend that `trainer.backend` names.

    Raises:
        errors.ConfigError: what it needs is not there; the message says how to get it.
    """
    if settings.backend == "peft":
        return with_peft.Peft(settings.gradient_checkpointing)
    if settings.backend == "unsloth":
        return unsloth.Unsloth(settings.gradient_checkpointing, settings.quantization)
    return own.Own(settings.gradient_checkpointing)
