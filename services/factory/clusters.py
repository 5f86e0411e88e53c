"""Which gaps of a night become one skill, and in which order the skills are learned.

Pure. Gaps are joined greedily, the most wanted first: each goes to the nearest skill of its domain
whose mean vector is similar enough, or begins one. The order goes through teachers and base models
so that each is come to once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from services.factory import tasks
from services.factory.meanings import Vectors


@dataclasses.dataclass(frozen=True)
class Skill:
    """Tasks that are learned as one."""

    tasks: tuple[str, ...]
    """Their ids; the first one learns the questions of all."""
    domain: str
    teacher: str = ""
    """Asked first, as `Rotation` names it."""
    base: str = ""
    """The model that is trained."""


@dataclasses.dataclass(frozen=True)
class Rotation:
    """What the skills of a night are shared out among."""

    teachers: tuple[str, ...] = ("",)
    """At least one; empty for whoever is configured first."""
    bases: tuple[str, ...] = ("",)
    """At least one. A cluster trains one base model today (`model.base`), so there is one."""

    def shared_out(self, skills: Sequence[Skill], turn: int) -> list[Skill]:
        """The skills in the order in which they are learned, each with teacher and base.

        Args:
            skills: those of a domain beside one another, and they stay so where that is possible.
            turn: of the night; another one begins with another teacher.
        """
        start = turn % len(self.teachers)
        turned = [*self.teachers[start:], *self.teachers[:start]]
        loads = [(teacher, base) for teacher in turned for base in self.bases]
        return [
            dataclasses.replace(skill, teacher=teacher, base=base)
            for at, skill in enumerate(skills)
            for teacher, base in [loads[at * len(loads) // len(skills)]]
        ]


def skills(
    gaps: Sequence[tasks.TrainingTask], vectors_N_D: Vectors | None, same_skill: float
) -> list[Skill]:
    """Joins gaps to skills, those of a domain beside one another.

    Args:
        gaps: tasks that wait.
        vectors_N_D: a unit vector of each; None where nobody can make them: none are joined.
        same_skill: cosine from which on gaps of a domain are one skill.
    """
    found: list[_Cluster] = []
    order = sorted(
        range(len(gaps)), key=lambda at: (gaps[at].domain, -gaps[at].demand, gaps[at].created_at_ms)
    )
    for at in order:
        gap = gaps[at]
        # What was taught or corrected is a skill of its own: it says by itself what belongs to it.
        if gap.taught or gap.corrections or vectors_N_D is None:
            found.append(_Cluster([gap], None))
            continue
        vector_D = vectors_N_D[at]
        near = [
            (cluster.cosine(vector_D), cluster) for cluster in found if cluster.has_room_for(gap)
        ]
        best, cluster = max(near, key=lambda pair: pair[0], default=(-1.0, None))
        if cluster is None or best < same_skill:
            found.append(_Cluster([gap], vector_D.copy()))
        else:
            cluster.add(gap, vector_D)
    return [
        Skill(tuple(gap.id for gap in cluster.gaps), cluster.gaps[0].domain) for cluster in found
    ]


@dataclasses.dataclass
class _Cluster:
    gaps: list[tasks.TrainingTask]
    sum_D: Vectors | None
    """Of the vectors; None where nothing joins."""

    def has_room_for(self, gap: tasks.TrainingTask) -> bool:
        asked = sum(len(one.queries) for one in (*self.gaps, gap))
        return (
            self.sum_D is not None
            and self.gaps[0].domain == gap.domain
            and asked <= tasks.MOST_QUERIES
        )

    def cosine(self, vector_D: Vectors) -> float:
        assert self.sum_D is not None
        length = float(np.linalg.norm(self.sum_D))
        return float(self.sum_D @ vector_D) / length if length else -1.0

    def add(self, gap: tasks.TrainingTask, vector_D: Vectors) -> None:
        assert self.sum_D is not None
        self.gaps.append(gap)
        self.sum_D += vector_D
