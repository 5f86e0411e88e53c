from __future__ import annotations

import numpy as np
import pytest

from services.router import space


def _groups(rng, cards: int, questions: int, within: np.ndarray, between: np.ndarray):
    dimension = len(within)
    centres = rng.multivariate_normal(np.zeros(dimension), between, cards)
    noise = rng.multivariate_normal(np.zeros(dimension), within, (cards, questions))
    return [centre + one for centre, one in zip(centres, noise, strict=True)]


def _points(found: space.Space, vectors: np.ndarray) -> np.ndarray:
    return (vectors - found.mean_D) @ found.projection_D_A


def test_axes_are_those_of_the_generalised_eigenproblem_when_the_space_was_fitted():
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    within = turn @ np.diag([4.0, 1.0, 0.25, 0.25]) @ turn.T
    groups = _groups(rng, 400, 20, within, np.diag([3.0, 2.0, 1.0, 0.5]))
    sums = space.sums(groups)
    assert sums.freedom == 400 * 19
    found = space.fit(sums, sums)
    points = [_points(found, group) for group in groups]
    across = np.cov(np.stack([p.mean(axis=0) for p in points]).T)
    # Cards are uncorrelated along the axes, and an axis counts by the cards' share b / (1 + b).
    assert np.abs(across - np.diag(np.diag(across))).max() < 0.1 * np.diag(across).max()
    length = np.diag(found.projection_D_A.T @ _shrunk(sums) @ found.projection_D_A)
    b = length / (1.0 - length)
    assert np.diag(across) - length / 20 == pytest.approx(length * b, rel=0.1)


def _shrunk(sums: space.Sums) -> np.ndarray:
    """W halfway to a sphere."""
    w = sums.within_D_D / sums.freedom
    return 0.5 * w + 0.5 * np.trace(w) / len(w) * np.eye(len(w))


def test_questions_of_a_card_lie_closer_when_the_space_shrinks_what_they_differ_in():
    rng = np.random.default_rng(5)
    within, between = np.diag([9.0, 1.0, 1.0, 1.0]), np.diag([0.1, 4.0, 4.0, 4.0])
    sums = space.sums(_groups(rng, 200, 5, within, between))
    found = space.fit(sums, sums)
    fresh = np.stack(_groups(rng, 200, 2, within, between))
    plain = fresh / np.linalg.norm(fresh, axis=-1, keepdims=True)
    before = _rank_of_own(plain[:, 0] @ plain[:, 1].T)
    after = _rank_of_own(found.directions(fresh[:, 0]) @ found.directions(fresh[:, 1]).T)
    assert after < 0.7 * before


def _rank_of_own(cosines: np.ndarray) -> float:
    return float((cosines > np.diag(cosines)[:, None]).mean())


def test_practice_counts_less_when_there_are_more_cards():
    rng = np.random.default_rng(3)
    practice = space.sums(_groups(rng, 30, 5, np.diag([1.0, 9.0]), np.eye(2)))
    spaces = [space.fit(practice)]
    for count in (10, 1000):
        own = space.sums(_groups(rng, count, 5, np.diag([9.0, 1.0]), np.eye(2)))
        spaces.append(space.fit(practice, own))
    # How much longer the first axis is than the second, in what makes questions alike.
    stretch = []
    for found in spaces:
        first, second = np.linalg.norm(found.projection_D_A, axis=1)
        stretch.append(first / second)
    assert stretch[0] > 1.3 > 0.8 > stretch[2] and stretch[1] > stretch[2]


def test_everything_stays_finite_when_all_questions_are_the_same():
    sums = space.sums([np.zeros((1, 3)), np.zeros((2, 3))])
    found = space.fit(space.Sums(np.zeros((3, 3)), 1.0, np.zeros((2, 3)), np.ones(2)), sums)
    assert np.isfinite(found.directions(np.zeros((2, 3), dtype=np.float32))).all()
