"""Keeps a training's state on disk, so that a killed trainer goes on instead of beginning again.

A training that went on equals an uninterrupted one up to rounding: the last bit of a product may
depend on where tensors lie in memory. Tensors in safetensors, numbers in its metadata: nothing is
unpickled.
"""

from __future__ import annotations

import pathlib
import time
from typing import Any

import safetensors
import safetensors.torch

from shared import atomic


class Stopwatch:
    """Seconds of work, those before a restart included."""

    def __init__(self, before_s: float) -> None:
        """Starts with the seconds already spent."""
        self._started = time.monotonic() - before_s

    @property
    def seconds(self) -> float:
        """Seconds until now."""
        return time.monotonic() - self._started


class Checkpoint:
    """The checkpoint file of one training."""

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the file, which need not exist."""
        self._path = path
        self.seconds = 0.0
        """Seconds of work behind the loaded state."""

    def save(self, state: dict[str, Any], seconds: float) -> None:
        """Replaces the file atomically with the state of a `loop.Loop`."""
        tensors = {f"parameter.{i}": p for i, p in enumerate(state["parameters"])}
        tensors["noise"] = state["noise"]
        for index, moments in state["optimiser"]["state"].items():
            for name, value in moments.items():
                tensors[f"moment.{index}.{name}"] = value
        numbers = {"step": str(state["step"]), "loss": str(state["loss"]), "seconds": str(seconds)}
        atomic.write(self._path, safetensors.torch.save(tensors, numbers))

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none or it can't be read."""
        try:
            with safetensors.safe_open(str(self._path), framework="pt") as file:
                numbers = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not iterable itself
        except (OSError, safetensors.SafetensorError):
            return None  # beginning again is right where nothing usable was left
        if numbers is None or not numbers.keys() >= {"step", "loss", "seconds"}:
            return None  # another version of the trainer wrote it
        self.seconds = float(numbers["seconds"])
        moments: dict[int, dict[str, Any]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "moment":
                index, _, moment = rest.partition(".")
                moments.setdefault(int(index), {})[moment] = value
        count = sum(name.startswith("parameter.") for name in tensors)
        return {
            "step": int(numbers["step"]),
            "loss": float(numbers["loss"]),
            "noise": tensors["noise"],
            "parameters": [tensors[f"parameter.{i}"] for i in range(count)],
            "moments": moments,
        }

    def remove(self) -> None:
        """Forgets the training."""
        self._path.unlink(missing_ok=True)


def beside(draft: pathlib.Path) -> Checkpoint:
    """That of the training which writes a draft."""
    return Checkpoint(draft.with_suffix(".checkpoint"))
