"""What the router is measured beside: semantic-router's rule and the plain centroid.

semantic-router is installed apart from the project, whose openai it would hold back, and gets the
project's vectors. Where it can't be installed, its rule is computed here, and the rows say so.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks import results
from benchmarks.router import intents, outcomes, vectors

PINNED = "semantic-router==1.1.1"
_TOP = 5
_BLOCK = 512
_INSTALL_S, _ANSWER_S = 600, 1_800
_PROCESS = pathlib.Path(__file__).with_name("semantic_router_process.py")

Lookup = Callable[[Sequence[str]], vectors.Matrix]
"""Vectors of texts, shape (texts, dimension)."""


@dataclasses.dataclass(frozen=True)
class Answered:
    """What semantic-router said."""

    name: str
    """How the rows call it."""
    outcomes: tuple[outcomes.Outcome, ...]
    """Of each trial."""


def semantic_router(trials: Sequence[intents.Trial], lookup: Lookup) -> Answered:
    """Its own answers from a process of its own, or its rule where it can't be had."""
    try:
        python = _installed(results.KEPT / "semantic-router")
        return _asked(python, trials, lookup)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        name = f"semantic-router's rule computed here, as it could not be run ({_reason(error)})"
        return Answered(name, tuple(top_five_mean(trial, lookup) for trial in trials))


def top_five_mean(trial: intents.Trial, lookup: Lookup) -> outcomes.Outcome:
    """semantic-router's rule: of the five nearest examples, the card with the highest mean."""
    examples_E_D = lookup([text for told in trial.cards.values() for text in told])
    owner = [name for name, told in trial.cards.items() for _ in told]
    first, score = [], []
    for similar_E in _similarities(lookup(trial.asked), examples_E_D):
        hits: dict[str, list[float]] = {}
        for at in np.argsort(-similar_E, kind="stable")[:_TOP]:
            hits.setdefault(owner[at], []).append(float(similar_E[at]))
        means = {name: sum(found) / len(found) for name, found in hits.items()}
        first.append(max(means, key=means.__getitem__))
        score.append(means[first[-1]])
    return outcomes.outcome(trial, first, score)


def centroid(trial: intents.Trial, lookup: Lookup) -> outcomes.Outcome:
    """The card whose examples' mean is nearest."""
    names = list(trial.cards)
    centroids_C_D = np.stack([lookup(told).mean(axis=0) for told in trial.cards.values()])
    centroids_C_D /= np.linalg.norm(centroids_C_D, axis=1, keepdims=True)
    similar_Q_C = np.stack(list(_similarities(lookup(trial.asked), centroids_C_D)))
    first = [names[at] for at in similar_Q_C.argmax(axis=1)]
    return outcomes.outcome(trial, first, [float(value) for value in similar_Q_C.max(axis=1)])


def _similarities(asked_Q_D: vectors.Matrix, known_K_D: vectors.Matrix) -> Any:
    for start in range(0, len(asked_Q_D), _BLOCK):
        yield from asked_Q_D[start : start + _BLOCK] @ known_K_D.T


def _installed(folder: pathlib.Path) -> pathlib.Path:
    """The interpreter of its environment, which is made where it is not there."""
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != PINNED:
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], _INSTALL_S)
        _run([str(python), "-m", "pip", "install", "--quiet", PINNED], _INSTALL_S)
        stamp.write_text(PINNED, encoding="utf-8")
    return python


def _asked(python: pathlib.Path, trials: Sequence[intents.Trial], lookup: Lookup) -> Answered:
    texts = list(dict.fromkeys(text for trial in trials for text in trial.texts))
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.save(folder / "vectors.npy", lookup(texts))
        work = {
            "texts": texts,
            "trials": [{"cards": trial.cards, "asked": trial.asked} for trial in trials],
        }
        (folder / "work.json").write_text(json.dumps(work), encoding="utf-8")
        # Isolated: neither this project's modules nor its packages are importable there.
        _run([str(python), "-I", str(_PROCESS), str(folder)], _ANSWER_S)
        said = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    found = [
        outcomes.outcome(trial, one["first"], one["score"])
        for trial, one in zip(trials, said["trials"], strict=True)
    ]
    return Answered(f"semantic-router {said['version']}", tuple(found))


def _run(command: Sequence[str], timeout_s: float) -> None:
    # On one core, as the router beside it.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run(
        command, env=environment, timeout=timeout_s, check=True, capture_output=True, text=True
    )


def _reason(error: Exception) -> str:
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = (said or "").strip().splitlines()
    return lines[-1] if lines else type(error).__name__
