"""Tokens per second and memory of a training: the own loop against PEFT, the same work for both."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys

import torch

from benchmarks import results
from benchmarks.training import jobs
from shared import terminal

_FASTER, _SMALLER = 1.35, 1.6
_ROUNDS = 3
_DEADLINE_S = 3600
_SAME_LOSS = 0.02
"""Relative difference of the last losses below which two trainings count as the same; bfloat16
keeps three digits."""
_PEFT = "peft"


def rows() -> list[results.Row]:
    """Takes some ten minutes; each training on one thread."""
    return [*_embedded(), *_large("float32"), *_large("bfloat16")]


def _embedded() -> list[results.Row]:
    own = jobs.Job("embedded", "float32", "own", steps=30, warm_up=5)
    peft = dataclasses.replace(own, side="peft")
    upper = dataclasses.replace(own, from_layer=2)
    found = in_turn({"own": own, "peft": peft, "upper": upper})
    return [
        *_compared("_embedded", found["own"], found["peft"]),
        *_pair("_embedded_from_layer_2_of_4", found["upper"], found["peft"]),
    ]


def _large(dtype: str) -> list[results.Row]:
    name = "" if dtype == "bfloat16" else f"_{dtype}"
    own = jobs.Job("0.5B", dtype, "own", steps=3, warm_up=1)  # type: ignore[arg-type]
    peft = dataclasses.replace(own, side="peft")
    rounds = _ROUNDS
    note = ""
    if dtype == "bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # A step of PEFT's takes minutes where the processor has no products of bfloat16.
        peft = dataclasses.replace(peft, steps=1, warm_up=0)
        rounds = 1
        note = (
            "this processor has no fast products of bfloat16: most of the ratio is the float32 "
            "pieces; the float32 rows are without it"
        )
    found = in_turn(
        {
            "own": own,
            "peft": peft,
            "upper": dataclasses.replace(own, from_layer=12),
            "twice": dataclasses.replace(own, gradient_checkpointing=True),
        },
        rounds,
    )
    peer = found["peft"]
    return [
        *_compared(name, found["own"], peer, note),
        *_pair(f"{name}_from_layer_12_of_24", found["upper"], peer),
        *_pair(f"{name}_gradient_checkpointing", found["twice"], peer),
    ]


def in_turn(wanted: dict[str, jobs.Job], rounds: int = _ROUNDS) -> dict[str, list[jobs.Found]]:
    """Each job in a process of its own, round after round, every second one backwards."""
    found: dict[str, list[jobs.Found]] = {name: [] for name in wanted}
    for number in range(rounds):
        order = list(wanted) if number % 2 == 0 else list(wanted)[::-1]
        for name in order:
            terminal.NOTES.print(f"training: {wanted[name].shape}, {wanted[name].dtype}, {name}")
            found[name].append(_in_a_process(wanted[name]))
    return found


def tokens_per_s(runs: list[jobs.Found]) -> float:
    """The median step's, over the median run."""
    return statistics.median(jobs.TOKENS / statistics.median(one.step_s) for one in runs)


def memory_mib(runs: list[jobs.Found]) -> float:
    """The median run's."""
    return statistics.median(one.memory_mib for one in runs)


def _in_a_process(job: jobs.Job) -> jobs.Found:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.training.one_training",
            json.dumps(dataclasses.asdict(job)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=_DEADLINE_S,
    )
    if done.returncode:
        raise RuntimeError(f"{job} failed:\n{done.stderr[-2000:]}")
    return jobs.Found(**json.loads(done.stdout.splitlines()[-1]))


def _compared(
    name: str,
    own: list[jobs.Found],
    peft: list[jobs.Found],
    note: str = "",
) -> list[results.Row]:
    """The rows that have a target, and that both did the same work."""
    return [
        *_pair(name, own, peft, (_FASTER, _SMALLER), note),
        results.Row(
            f"loss_difference{name}",
            loss_difference(own[0], peft[0]),
            "relative",
            most=_SAME_LOSS,
            peer=_PEFT,
            note="of the last step that both took: the same work",
        ),
    ]


def _pair(
    name: str,
    own: list[jobs.Found],
    peft: list[jobs.Found],
    least: tuple[float | None, float | None] = (None, None),
    note: str = "",
) -> list[results.Row]:
    speed, peer_speed = tokens_per_s(own), tokens_per_s(peft)
    memory, peer_memory = memory_mib(own), memory_mib(peft)
    return [
        results.Row(
            f"tokens_per_s{name}",
            speed,
            "tokens/s",
            peer=_PEFT,
            peer_value=peer_speed,
            ratio=speed / peer_speed,
            least_ratio=least[0],
            note=note,
        ),
        results.Row(
            f"memory_mib{name}",
            memory,
            "MiB",
            peer=_PEFT,
            peer_value=peer_memory,
            ratio=peer_memory / memory,
            least_ratio=least[1],
            note="peak above the loaded model",
        ),
    ]


def loss_difference(own: jobs.Found, peft: jobs.Found) -> float:
    """Relative, at the last step that both took."""
    at = min(len(own.losses), len(peft.losses)) - 1
    return abs(own.losses[at] / peft.losses[at] - 1.0)
