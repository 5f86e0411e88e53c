"""Chance against a shared pattern, over many seeds, shapes, ranks and levels of noise."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from services.hierarchy import resonance
from shared.hierarchy import levels, messages, weights
from tests.unit.hierarchy import random_weights

RANKS = (4, 8, 16)


@dataclasses.dataclass(frozen=True)
class Model:
    """Sides of the modules that a swarm adapts."""

    modules: int
    inside: int
    out: int
    seeds: int
    ranks: tuple[int, int, int] = RANKS


EMBEDDED = Model(16, 256, 256, 20)
TINY = Model(3, 16, 16, 100)
ONE = Model(1, 16, 16, 100, (1, 1, 1))
FLAT = Model(4, 48, 8, 100)
LARGE = Model(6, 896, 896, 4)
MODELS = [EMBEDDED, TINY, ONE, FLAT, LARGE]


def noisy(
    generator: torch.Generator,
    pattern: weights.Factors | None,
    noise: float,
    rank: int,
    model: Model,
) -> weights.Factors:
    """A pattern with random changes of `noise` times its norm; without one the changes alone."""
    other = random_weights.factors(generator, (model.inside, model.out), rank)
    if pattern is None:
        return other
    size = noise * math.sqrt(weights.inner(pattern, pattern) / weights.inner(other, other))
    return weights.Factors(
        torch.cat([pattern.a, other.a], dim=1), torch.cat([pattern.b, other.b * size], dim=0)
    )


def swarm_of(
    model: Model, seed: int, agents: int, planted: int, noise: float, share: float = 1.0
) -> list[tuple[weights.Weights, weights.Weights, weights.Weights]]:
    """Context, agent and swarm changes of agents, of which the first share a pattern.

    Args:
        share: of the modules that hold the pattern.
    """
    generator = torch.Generator().manual_seed(seed)
    holding = round(share * model.modules)
    patterns = [
        random_weights.factors(generator, (model.inside, model.out), 2) if at < holding else None
        for at in range(model.modules)
    ]
    found = []
    for number in range(agents):
        layers = []
        for rank in model.ranks:
            layers.append(
                {
                    f"m{at}": noisy(
                        generator, pattern if number < planted else None, noise, rank, model
                    )
                    for at, pattern in enumerate(patterns)
                }
            )
        found.append((layers[0], layers[1], layers[2]))
    return found


def marks(
    agents: list[tuple[weights.Weights, weights.Weights, weights.Weights]],
) -> list[resonance.Resonance]:
    """Each agent against the mean of the others' changes of the swarm."""
    found = []
    for at, (context, agent, _) in enumerate(agents):
        others = [swarm for number, (_, _, swarm) in enumerate(agents) if number != at]
        mean = weights.summed(others, [1 / len(others)] * len(others))
        found.append(resonance.VerticalResonance().resonate(context, agent, mean))
    return found


def rate(results: list[resonance.Resonance], mark: messages.Mark) -> float:
    return sum(result.mark is mark for result in results) / len(results)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.modules}x{model.inside}")
def test_random_gradients_are_not_fast_tracked(model: Model) -> None:
    results = [
        result
        for seed in range(2 * model.seeds)
        for result in marks(swarm_of(model, seed, 5, planted=0, noise=1.0))
    ]
    assert rate(results, messages.Mark.FAST_TRACK) < 0.05
    assert rate(results, messages.Mark.CONFLICT) < 0.05


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.modules}x{model.inside}")
def test_an_agent_does_not_confirm_itself_when_its_layers_move_alike(model: Model) -> None:
    results = []
    for seed in range(4 * model.seeds):
        generator = torch.Generator().manual_seed(seed)
        own, swarm = (
            {f"m{at}": noisy(generator, None, 1.0, rank, model) for at in range(model.modules)}
            for rank in model.ranks[1:]
        )
        results.append(resonance.VerticalResonance().resonate(own, own, swarm))
    assert rate(results, messages.Mark.FAST_TRACK) < 0.05
    assert results[0].alignment > 0.3


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "model", [EMBEDDED, FLAT, LARGE], ids=lambda model: f"{model.modules}x{model.inside}"
)
def test_agents_that_share_a_pattern_are_fast_tracked(model: Model, noise: float) -> None:
    results = [
        result
        for seed in range(model.seeds // 2)
        for result in marks(swarm_of(model, seed, 4, planted=4, noise=noise))
    ]
    assert rate(results, messages.Mark.FAST_TRACK) >= 0.8


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("model", [TINY, ONE], ids=lambda model: f"{model.modules}x{model.inside}")
def test_agents_that_share_a_pattern_are_fast_tracked_when_modules_are_tiny(
    model: Model, noise: float
) -> None:
    results = [
        result
        for seed in range(model.seeds)
        for result in marks(swarm_of(model, seed, 4, planted=4, noise=noise))
    ]
    assert rate(results, messages.Mark.FAST_TRACK) >= 0.8


@pytest.mark.parametrize("share", [1 / 16, 0.25, 0.5])
def test_a_pattern_in_some_modules_and_some_agents_is_found_and_the_others_are_not(
    share: float,
) -> None:
    planted, others = [], []
    for seed in range(10):
        results = marks(swarm_of(EMBEDDED, seed, 8, planted=3, noise=2.0, share=share))
        planted += results[:3]
        others += results[3:]
    assert rate(planted, messages.Mark.FAST_TRACK) >= 0.8
    assert rate(others, messages.Mark.FAST_TRACK) < 0.05


def test_a_pattern_is_found_when_it_is_in_one_of_many_tiny_modules() -> None:
    model = Model(32, 16, 16, 15)
    planted, others = [], []
    for seed in range(model.seeds):
        planted += marks(swarm_of(model, seed, 4, planted=4, noise=1.0, share=1 / 32))
        others += marks(swarm_of(model, seed, 4, planted=0, noise=1.0))
    assert rate(planted, messages.Mark.FAST_TRACK) >= 0.8
    assert rate(others, messages.Mark.FAST_TRACK) < 0.05


def test_agents_are_fast_tracked_when_they_see_one_gradient_through_layers_of_their_own() -> None:
    results = []
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        layers = []
        full = [torch.randn(256, 256, generator=generator) for _ in range(16)]
        for rank in RANKS:
            found = {}
            for at, gradient in enumerate(full):
                a = torch.randn(256, rank, generator=generator)
                noise = 2.0 * torch.randn(256, 256, generator=generator)
                found[f"m{at}"] = weights.Factors(a, a.T @ (gradient + noise))
            layers.append(found)
        results.append(resonance.VerticalResonance().resonate(*layers))
    assert rate(results, messages.Mark.FAST_TRACK) >= 0.8


def test_layers_are_amplified_when_they_agree_and_the_faster_damped_when_they_do_not() -> None:
    change = random_weights.change(1, ["m0", "m1"], (32, 32), 4)
    against = {path: factors.scaled(-3.0) for path, factors in change.items()}
    agreed = resonance.VerticalResonance().resonate(change, change, change)
    opposed = resonance.VerticalResonance().resonate(change, change, against)
    assert agreed.mark is messages.Mark.FAST_TRACK
    assert agreed.alignment == pytest.approx(1.0)
    excess = 1.0 - 2.5 / 32 / math.sqrt(2)
    assert agreed.factors == pytest.approx(
        dict.fromkeys(
            (levels.Level.CONTEXT, levels.Level.AGENT, levels.Level.SWARM), 1 + 0.3 * excess
        )
    )
    assert opposed.mark is messages.Mark.CONFLICT
    assert opposed.alignment == pytest.approx(-1 / 3)
    assert opposed.factors[levels.Level.CONTEXT] == pytest.approx(1 - 0.2 * excess)
    assert opposed.factors[levels.Level.AGENT] == pytest.approx(1 - 0.2 * excess)
    assert opposed.factors[levels.Level.SWARM] == 1.0
    loud = resonance.VerticalResonance(resonance.VerticalSettings(gain=9.0, damping=9.0))
    assert set(loud.resonate(change, change, change).factors.values()) == {2.0}
    assert loud.resonate(change, change, against).factors[levels.Level.AGENT] == 0.0


def test_nothing_is_marked_when_there_is_nothing_to_compare_or_it_is_switched_off() -> None:
    change = random_weights.change(1, ["m0"], (16, 16), 4)
    nothing = {"m0": weights.Factors(torch.zeros(16, 4), torch.zeros(4, 16))}
    vertical = resonance.VerticalResonance()
    for swarm in (nothing, {}, {"other": change["m0"]}):
        found = vertical.resonate(change, change, swarm)
        assert found.mark is messages.Mark.NORMAL
        assert set(found.factors.values()) == {1.0}
    off = resonance.VerticalResonance(resonance.VerticalSettings(enabled=False))
    assert off.resonate(change, change, change).mark is messages.Mark.NORMAL


def test_horizontal_factors_are_those_of_the_formula_when_computed_from_full_products() -> None:
    before = random_weights.change(0, ["m0", "m1"], (12, 20), 3)
    gradients = {
        f"agent{seed}": random_weights.change(seed, ["m0", "m1"], (12, 20), 3, size=10.0**seed)
        for seed in (1, 2, 3)
    }
    found = resonance.HorizontalResonance().resonate(gradients, before)
    for agent in gradients:
        cosines = []
        for path in before:
            held = random_weights.product(before[path])
            unit = {}
            for name, gradient in gradients.items():
                moved = weights.Factors(
                    before[path].a + gradient[path].a, before[path].b + gradient[path].b
                )
                change = random_weights.product(moved) - held
                unit[name] = change / change.norm()
            rest = sum((unit[name] for name in unit if name != agent), torch.zeros_like(held))
            cosines.append(float((unit[agent] * rest).sum() / rest.norm()))
        mean = sum(cosines) / 2
        expected = 1 + 0.5 * mean if mean > 0 else 1 + 0.3 * mean
        assert found.alignments[agent] == pytest.approx(mean, abs=1e-4)
        assert found.factors[agent] == pytest.approx(expected, abs=1e-4)


def test_agents_are_amplified_when_they_agree_and_one_is_damped_that_contradicts() -> None:
    paths = ["m0", "m1"]
    before = {
        path: weights.Factors(factors.a, 0 * factors.b)
        for path, factors in random_weights.change(0, paths, (64, 64), 8).items()
    }
    shared = random_weights.change(1, paths, (64, 64), 8)

    def gradient(seed: int, sign: float) -> weights.Delta:
        noise = random_weights.change(seed, paths, (64, 64), 8)
        return {
            path: weights.Factors(torch.zeros(64, 8), sign * shared[path].b + noise[path].b)
            for path in paths
        }

    agents = {f"agent{seed}": gradient(seed, 1.0) for seed in range(2, 6)}
    found = resonance.HorizontalResonance().resonate(agents | {"bad": gradient(9, -1.0)}, before)
    assert found.amplified == tuple(agents)
    assert found.damped == ("bad",)
    assert all(1.1 < found.factors[agent] <= 1.5 for agent in agents)
    assert 0.7 <= found.factors["bad"] < 0.9
    assert found.signal > 0.3


def test_random_agents_are_neither_amplified_nor_damped_though_they_share_a_layer() -> None:
    told = 0
    for seed in range(60):
        held = random_weights.change(10_000 + seed, ["m0"], (64, 64), 8)["m0"]
        before = {"m0": weights.Factors(held.a, 0 * held.b)}
        gradients = {
            f"agent{at}": random_weights.change(100 * seed + at, ["m0"], (64, 64), 8, 0.01)
            for at in range(5)
        }
        found = resonance.HorizontalResonance().resonate(gradients, before)
        told += len(found.amplified) + len(found.damped)
        assert all(0.9 < factor < 1.1 for factor in found.factors.values())
    assert told / 300 < 0.05


def test_one_agent_alone_is_left_as_it_is() -> None:
    before = random_weights.change(0, ["m0"], (12, 20), 3)
    alone = {"agent": random_weights.change(1, ["m0"], (12, 20), 3)}
    found = resonance.HorizontalResonance().resonate(alone, before)
    assert found.factors == {"agent": 1.0}
    assert found.signal == 0.0
    assert resonance.HorizontalResonance().resonate({}, before).factors == {}
