"""One course in a process of its own: `python -m benchmarks.hierarchy.one_course JOB`.

JOB is a `Job` in JSON, and so is the `course.Course` on the last line of the output. Several run at
once, a core each.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence

import torch

from benchmarks import results
from benchmarks.hierarchy import baselines, course, memory, variants, world
from shared import atomic, telemetry, terminal
from shared import settings as config
from shared.hierarchy import learning
from shared.models import base as bases

_DEADLINE_S = 4 * 3600


@dataclasses.dataclass(frozen=True)
class Job:
    """Which method on which plan."""

    method: str
    """Of `baselines.BASELINES` or `variants.VARIANTS`."""
    domains: int = 6
    seed: int = 0
    agents: int = 4
    seen_by: int = 2
    bad: int = 0
    """How many of the agents send shuffled answers."""

    @property
    def plan(self) -> world.Plan:
        """Who meets what."""
        bad = frozenset(range(self.agents - self.bad, self.agents))
        return world.Plan(self.agents, self.domains, self.seen_by, seed=self.seed, bad=bad)


def run(job: Job) -> course.Course:
    """Runs in this process."""
    torch.set_num_threads(1)
    telemetry.configure(config.Telemetry(log_level="error"), "bench")
    bench = course.Bench(bases.load(bases.EMBEDDED))
    recipe = learning.Recipe()
    if job.method in baselines.BASELINES:
        return course.run(bench, baselines.BASELINES[job.method](bench, recipe, job.plan), job.plan)
    variant = variants.VARIANTS[job.method]
    return course.run(bench, memory.Memory(bench, recipe, job.plan, variant), job.plan)


def run_all(jobs: Sequence[Job]) -> list[course.Course]:
    """As many at once as there are cores, each in a process of its own.

    What was found is kept by commit, so that a run that was stopped goes on where it was.
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_kept, jobs))


def _kept(job: Job) -> course.Course:
    asked = json.dumps(dataclasses.asdict(job))
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    name = hashlib.sha256(f"{commit} {asked}".encode()).hexdigest()[:16]
    path = results.KEPT / "hierarchy" / f"{name}.json"
    can_keep = bool(commit) and not commit.endswith("-dirty")
    if can_keep and path.is_file():
        return course.from_json(path.read_text(encoding="utf-8"))
    found = _in_a_process(asked)
    told = f"{job.method}, seed {job.seed}, {job.domains} domains, {job.bad} bad: "
    told += f"old {found.old:.2f}, others {found.others:.2f}, known {found.known:.2f}"
    terminal.NOTES.print(f"hierarchy: {told}", markup=False)
    if can_keep:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(dataclasses.asdict(found)).encode())
    return found


def _in_a_process(asked: str) -> course.Course:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hierarchy.one_course", asked],
        capture_output=True,
        text=True,
        check=False,
        timeout=_DEADLINE_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{asked} failed:\n{done.stderr[-2000:]}")
    return course.from_json(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(run(Job(**json.loads(sys.argv[1]))))))
