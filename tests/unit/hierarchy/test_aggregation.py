"""Robust aggregation against references, and with real gradients of which one agent's are bad."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from services.hierarchy import aggregation
from shared import errors
from shared.hierarchy import weights

PLAIN = aggregation.AggregationSettings(
    method=aggregation.Method.MEAN, clip=math.inf, use_filter=False
)


def delta(a: torch.Tensor, b: torch.Tensor) -> weights.Delta:
    return {"m": weights.Factors(a, b)}


def flat(change: weights.Delta) -> torch.Tensor:
    parts = [part for step in change.values() for part in (step.a, step.b)]
    return torch.cat([part.reshape(-1) for part in parts]).double()


def learned(seed: int, shuffled: bool = False, task: int = 0) -> weights.Delta:
    """Pseudo-gradient of a LoRA on a linear classifier: five steps on an agent's own examples."""
    source = torch.Generator().manual_seed(1000 + task)
    truth = torch.randn(32, 10, generator=source)
    shared = torch.Generator().manual_seed(0)
    base = 0.1 * torch.randn(32, 10, generator=shared)
    start_a = torch.randn(32, 4, generator=shared) / 32**0.5
    start_b = 0.05 * torch.randn(4, 10, generator=shared)
    own = torch.Generator().manual_seed(seed)
    inputs = torch.randn(200, 32, generator=own)
    answers = (inputs @ truth).argmax(1)
    if shuffled:
        answers = answers[torch.randperm(200, generator=own)]
    a, b = start_a.clone().requires_grad_(), start_b.clone().requires_grad_()
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(inputs @ (base + a @ b), answers)
        grads = torch.autograd.grad(loss, (a, b))
        with torch.no_grad():
            a, b = ((each - 0.5 * grad) for each, grad in zip((a, b), grads, strict=True))
        a.requires_grad_()
        b.requires_grad_()
    return delta((a - start_a).detach(), (b - start_b).detach())


def bad(kind: str) -> weights.Delta:
    """What a faulty or hostile agent sends."""
    if kind == "shuffled":
        return learned(9, shuffled=True)
    honest = learned(9)["m"]
    if kind == "noise":
        generator = torch.Generator().manual_seed(5)
        size = 3.0 * float(honest.a.std())
        return delta(
            size * torch.randn(honest.a.shape, generator=generator),
            size * torch.randn(honest.b.shape, generator=generator),
        )
    sign, scale = {"flipped": (-1.0, 1.0), "huge": (1.0, 100.0), "huge_flipped": (-1.0, 100.0)}[
        kind
    ]
    return delta(sign * scale * honest.a, sign * scale * honest.b)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["shuffled", "noise", "flipped", "huge", "huge_flipped"])
@pytest.mark.parametrize("method", [aggregation.Method.TRIMMED_MEAN, aggregation.Method.MEDIAN])
def test_the_result_stays_near_the_honest_mean_when_one_of_five_agents_is_bad(
    kind: str, method: aggregation.Method
) -> None:
    agents = {f"agent{seed}": learned(seed) for seed in range(4)}
    honest = torch.stack([flat(change) for change in agents.values()]).mean(0)
    spread = max(error(flat(change), honest) for change in agents.values())
    found = aggregation.combine(
        agents | {"bad": bad(kind)}, settings=aggregation.AggregationSettings(method=method)
    )
    plain = aggregation.combine(agents | {"bad": bad(kind)}, settings=PLAIN)
    off = error(flat(found.delta), honest)
    assert off < 0.25
    assert off < spread  # Nearer than an honest agent alone.
    assert off < 0.75 * error(flat(plain.delta), honest)
    assert float(torch.nn.functional.cosine_similarity(flat(found.delta), honest, dim=0)) > 0.97
    if kind == "huge":
        assert found.clipped == ("bad",)
    else:
        assert list(found.left_out) == ["bad"]
        assert "cosine" in found.left_out["bad"]


@pytest.mark.parametrize("kind", ["shuffled", "noise", "flipped", "huge_flipped"])
def test_trimming_bounds_a_bad_agent_when_nothing_is_left_out(kind: str) -> None:
    agents = {f"agent{seed}": learned(seed) for seed in range(4)}
    honest = torch.stack([flat(change) for change in agents.values()]).mean(0)
    found = aggregation.combine(
        agents | {"bad": bad(kind)}, settings=aggregation.AggregationSettings(use_filter=False)
    )
    assert not found.left_out
    assert error(flat(found.delta), honest) < 0.35


def test_two_of_ten_are_left_out_when_they_flip_together() -> None:
    agents = {f"agent{seed}": learned(seed) for seed in range(8)}
    honest = torch.stack([flat(change) for change in agents.values()]).mean(0)
    evil = {"bad1": bad("flipped"), "bad2": bad("huge_flipped")}
    found = aggregation.combine(agents | evil)
    assert set(found.left_out) == set(evil)
    assert error(flat(found.delta), honest) < 0.15


def test_no_honest_agent_is_left_out_when_all_learn_different_tasks() -> None:
    agents = {f"agent{seed}": learned(seed, task=seed) for seed in range(6)}
    assert not aggregation.combine(agents).left_out
    same = {f"agent{seed}": learned(seed) for seed in range(6)}
    assert not aggregation.combine(same).left_out


@settings(deadline=None)
@given(
    count=st.integers(1, 9),
    seed=st.integers(0, 10_000),
    method=st.sampled_from(list(aggregation.Method)),
    trim=st.sampled_from([0.0, 0.2, 0.4]),
)
def test_columns_are_combined_as_numbers_sorted_by_hand(
    count: int, seed: int, method: aggregation.Method, trim: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Few values, so that there are ties.
    rows = torch.randint(-2, 3, (count, 20), generator=generator).float()
    agents = {
        str(at): delta(row[:12].reshape(6, 2), row[12:].reshape(2, 4))
        for at, row in enumerate(rows)
    }
    chosen = aggregation.AggregationSettings(method, trim, math.inf, use_filter=False)
    found = flat(aggregation.combine(agents, settings=chosen).delta)
    ordered = rows.double().sort(0).values
    expected = ordered.mean(0)
    if count >= 3 and method is aggregation.Method.MEDIAN:
        expected = torch.quantile(rows.double(), 0.5, dim=0)
    elif count >= 3 and method is aggregation.Method.TRIMMED_MEAN and trim:
        cut = min(max(1, int(trim * count + 1e-9)), (count - 1) // 2)
        expected = ordered[cut : count - cut].mean(0)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


@settings(deadline=None)
@given(count=st.integers(3, 9), seed=st.integers(0, 10_000))
def test_cosines_are_those_with_the_median_of_the_others(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-2, 3, (count, 20), generator=generator).float()
    agents = {
        str(at): delta(row[:12].reshape(6, 2), row[12:].reshape(2, 4))
        for at, row in enumerate(rows)
    }
    found = aggregation.combine(
        agents, settings=aggregation.AggregationSettings(clip=math.inf)
    ).cosines
    for at, row in enumerate(rows.double()):
        others = torch.cat([rows[:at], rows[at + 1 :]]).double()
        median = torch.quantile(others, 0.5, dim=0)
        expected = torch.nn.functional.cosine_similarity(row, median, dim=0)
        assert found[str(at)] == pytest.approx(float(expected), abs=1e-5)


def test_norms_are_clipped_to_a_multiple_of_the_median_before_factors_apply() -> None:
    ones = torch.ones(2, 1), torch.ones(1, 2)
    agents = {str(size): delta(ones[0] * size, ones[1] * size) for size in (1.0, 2.0, 30.0)}
    chosen = aggregation.AggregationSettings(aggregation.Method.MEAN, clip=1.5)
    found = aggregation.combine(agents, {"30.0": 2.0, "1.0": 0.0}, chosen)
    assert found.clipped == ("30.0",)
    assert flat(found.delta).tolist() == pytest.approx([(0.0 + 2.0 + 2.0 * 3.0) / 3] * 4)


def test_the_mean_is_taken_when_there_are_fewer_than_three_agents() -> None:
    ones = torch.ones(2, 1), torch.ones(1, 2)
    agents = {str(size): delta(ones[0] * size, ones[1] * size) for size in (1.0, 1.4)}
    assert flat(aggregation.combine(agents).delta).tolist() == pytest.approx([1.2] * 4)


def test_the_louder_of_two_agents_is_clipped_to_the_other() -> None:
    ones = torch.ones(2, 1), torch.ones(1, 2)
    agents = {str(size): delta(ones[0] * size, ones[1] * size) for size in (1.0, 100.0)}
    found = aggregation.combine(agents)
    assert found.clipped == ("100.0",)
    assert flat(found.delta).tolist() == pytest.approx([1.25] * 4)


def test_an_agent_is_left_out_and_others_count_when_its_change_is_not_finite() -> None:
    ones = torch.ones(2, 1), torch.ones(1, 2)
    agents = {
        "good": delta(*ones),
        "nan": delta(ones[0] * math.nan, ones[1]),
        "infinite": delta(ones[0], ones[1] * math.inf),
    }
    found = aggregation.combine(agents)
    assert set(found.left_out) == {"nan", "infinite"}
    assert flat(found.delta).tolist() == [1.0] * 4
    assert aggregation.combine({"nan": agents["nan"]}).delta == {}
    assert aggregation.combine({}).delta == {}


def test_a_module_counts_as_zero_for_agents_that_lack_it() -> None:
    ones = weights.Factors(torch.ones(2, 1), torch.ones(1, 2))
    chosen = aggregation.AggregationSettings(clip=9.0)
    found = aggregation.combine({"x": {"m": ones, "n": ones}, "y": {"n": ones}}, None, chosen)
    assert found.delta["m"].a.tolist() == [[0.5], [0.5]]
    assert found.delta["n"].a.tolist() == [[1.0], [1.0]]


def test_what_does_not_fit_together_is_refused() -> None:
    ones = torch.ones(2, 1), torch.ones(1, 2)
    with pytest.raises(errors.InvalidInputError, match="agent 'y' sent A"):
        aggregation.combine({"x": delta(*ones), "y": delta(torch.ones(3, 1), ones[1])})
    with pytest.raises(errors.InvalidInputError, match="factor of agent 'x'"):
        aggregation.combine({"x": delta(*ones)}, {"x": -1.0})
    with pytest.raises(errors.InvalidInputError, match="trim"):
        aggregation.combine({}, settings=aggregation.AggregationSettings(trim=0.5))


def test_an_agent_that_is_alone_is_held_against_what_others_brought_before() -> None:
    known: dict[str, float] = {}
    for turn in range(4):
        for seed in range(3):
            found = aggregation.combine({f"agent-{seed}": learned(10 * turn + seed)}, known=known)
            known |= found.norms
            assert found.clipped == ()
    usual = sorted(known.values())[1]
    honest = learned(9)["m"]
    huge = delta(1e4 * honest.a, 1e4 * honest.b)
    found = aggregation.combine({"agent-2": huge}, known=known)
    assert float(flat(found.delta).norm()) == pytest.approx(3.0 * usual, rel=1e-4)
    assert found.clipped == ("agent-2",) and found.norms["agent-2"] == pytest.approx(3.0 * usual)
    # Nor do two that are alone together, nor one that goes on and on, get further.
    for _ in range(50):
        found = aggregation.combine({"agent-2": huge}, known=known)
        known |= found.norms
    assert float(flat(found.delta).norm()) <= 3.01 * usual


def test_what_an_agent_brought_at_most_fades_as_it_brings_less() -> None:
    small = learned(1)["m"]
    tiny = delta(1e-3 * small.a, 1e-3 * small.b)
    found = aggregation.combine({"ada": tiny}, known={"ada": 1.0})
    assert found.norms == {"ada": pytest.approx(0.98)}
    assert aggregation.combine({"ada": tiny}, known={"ada": 0.0}).norms["ada"] == pytest.approx(
        float(flat(tiny).norm()), rel=1e-5
    )
