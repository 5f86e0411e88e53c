"""The own loop's network: the same numbers as PEFT's, in less time and memory (see `lean`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from services.trainer.backends import base
from services.trainer.lean import network as lean


class Own:
    """LoRA by functions that keep no activation they can do without."""

    def __init__(self, gradient_checkpointing: bool = False) -> None:
        """Takes how much is kept for the backward pass.

        Args:
            gradient_checkpointing: keep each decoder layer's input alone, and compute it twice.
        """
        self._gradient_checkpointing = gradient_checkpointing

    @contextlib.contextmanager
    def open(self, work: base.Work) -> Iterator[base.Training]:
        """See `base.Backend`."""
        adapters = work.fresh()
        with lean.installed(
            work.base.model, adapters, self._gradient_checkpointing, work.from_layer
        ) as net:
            yield base.Training(work.loop(net), lambda: base.at_rest(adapters))
