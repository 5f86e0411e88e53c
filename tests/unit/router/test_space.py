from __future__ import annotations

import numpy as np
import pytest

from services.router import space


def _gaussian(x: np.ndarray, covariance: np.ndarray) -> float:
    """Log density of a centred Gaussian but for the constant of its dimension."""
    return float(-0.5 * x @ np.linalg.solve(covariance, x) - 0.5 * np.linalg.slogdet(covariance)[1])


def _groups(rng, cards: int, questions: int, within: np.ndarray, between: np.ndarray):
    dimension = len(within)
    centres = rng.multivariate_normal(np.zeros(dimension), between, cards)
    noise = rng.multivariate_normal(np.zeros(dimension), within, (cards, questions))
    return [centre + one for centre, one in zip(centres, noise, strict=True)]


@pytest.mark.parametrize("counts", [[1, 1], [1, 4, 2], [30]])
def test_ratio_is_that_of_the_joint_densities_whatever_is_known_of_a_card(counts):
    """p(question, examples) / (p(question) p(examples)) under the model, by big matrices."""
    rng = np.random.default_rng(1)
    between = np.array([4.0, 0.5, 0.01])
    found = space.Space(np.zeros(3), np.eye(3), between)
    examples = [rng.normal(size=(n, 3)) * 2 for n in counts]
    question = rng.normal(size=3) * 2
    means = np.stack([e.mean(axis=0) for e in examples])
    ratios = space.Likelihoods(found, means, counts).of(question)
    for told, ratio in zip(examples, ratios, strict=True):
        together = np.vstack([told, question])
        # Every two questions of one card share B; each has W, the unit matrix, of its own.
        shared, own = np.ones((len(together),) * 2), np.eye(len(together))
        joint = sum(_gaussian(together[:, d], shared * between[d] + own) for d in range(3))
        known = sum(
            _gaussian(told[:, d], shared[:-1, :-1] * between[d] + own[:-1, :-1]) for d in range(3)
        )
        alone = sum(_gaussian(question[d : d + 1], np.eye(1) * (between[d] + 1)) for d in range(3))
        assert ratio == pytest.approx(joint - known - alone, abs=1e-9)


def test_questions_of_a_card_are_spread_like_a_ball_when_the_space_was_fitted():
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    within = turn @ np.diag([4.0, 1.0, 0.25, 0.25]) @ turn.T
    between = np.diag([3.0, 2.0, 1.0, 0.5])
    groups = _groups(rng, 400, 20, within, between)
    sums = space.sums(groups)
    assert sums.freedom == 400 * 19
    found = space.fit(sums, sums)
    points = [found.project(group) for group in groups]
    apart = np.concatenate([p - p.mean(axis=0) for p in points])
    spread = apart.T @ apart / sums.freedom
    # Not quite a ball: W is shrunk towards one.
    assert np.linalg.cond(spread) < np.linalg.cond(within) / 2
    centres = np.stack([p.mean(axis=0) for p in points])
    across = np.cov(centres.T) - np.eye(4) / 20
    assert np.diag(across) == pytest.approx(found.between_D, rel=0.1)
    assert np.abs(across - np.diag(np.diag(across))).max() < 0.1


def test_practice_counts_less_when_there_are_more_cards():
    rng = np.random.default_rng(3)
    practice = space.sums(_groups(rng, 30, 5, np.diag([1.0, 9.0]), np.eye(2)))
    spaces = [space.fit(practice)]
    for count in (1, 10, 1000):
        own = space.sums(_groups(rng, count, 5, np.diag([9.0, 1.0]), np.eye(2)))
        spaces.append(space.fit(practice, own))
    # How much longer the first axis is than the second, in what makes questions alike.
    stretch = []
    for found in spaces:
        shown = found.project(np.eye(2)) - found.project(np.zeros((2, 2)))
        first, second = np.linalg.norm(shown, axis=1)
        stretch.append(first / second)
    assert stretch == sorted(stretch, reverse=True) and stretch[0] > 1.3 > 0.8 > stretch[-1]


def test_everything_stays_finite_when_all_questions_are_the_same():
    sums = space.sums([np.zeros((1, 3)), np.zeros((2, 3))])
    found = space.fit(space.Sums(np.zeros((3, 3)), 1.0, np.zeros((2, 3)), np.ones(2)), sums)
    points = found.project(np.zeros((2, 3)))
    assert np.isfinite(found.directions(points)).all()
    assert np.isfinite(space.Likelihoods(found, points, [1, 2]).of(points[0])).all()
