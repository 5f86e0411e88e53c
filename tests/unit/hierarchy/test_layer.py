"""One layer against its formulas, computed again by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from shared import errors
from shared.hierarchy import homeostasis, layer, layer_settings, levels, weights
from tests.unit.hierarchy import random_weights

PLAIN = layer_settings.LayerSettings(use_screening=False, use_decay=False)


def same(one: weights.Weights, other: weights.Weights) -> bool:
    return list(one) == list(other) and all(
        torch.equal(one[path].a, other[path].a) and torch.equal(one[path].b, other[path].b)
        for path in one
    )


def filled(seed: int = 1, rank: int = 4) -> layer.DynamicLoRALayer:
    held = random_weights.small(rank=rank)
    for at in range(5):
        held.update(random_weights.like(held, seed + at, 0.1))
        held.maintain_homeostasis()
    return held


def test_a_layer_adds_nothing_and_is_healthy_when_it_is_new() -> None:
    held = random_weights.small()
    assert all(bool((own.b == 0).all()) for own in held.weights.values())
    assert all(float(own.a.abs().max()) <= 12**-0.5 for own in held.weights.values())
    assert float(held.weights["q"].a.std()) == pytest.approx(12**-0.5 / 3**0.5, rel=0.25)
    assert held.maintain_homeostasis() == homeostasis.Homeostasis(0.0, 0.0, 1.0, 0.5)


def test_starts_differ_by_level_and_path_and_are_the_same_whatever_the_neighbours() -> None:
    shape = weights.Shape(12, 8)
    swarm = random_weights.small(shapes={"q": shape, "k": shape})
    alone = random_weights.small(shapes={"k": shape})
    domain = layer.DynamicLoRALayer(levels.Level.DOMAIN, {"k": shape}, levels.Spec(4, 0.5), seed=3)
    assert torch.equal(swarm.weights["k"].a, alone.weights["k"].a)
    assert not torch.equal(swarm.weights["q"].a, swarm.weights["k"].a)
    assert not torch.equal(domain.weights["k"].a, alone.weights["k"].a)


def test_a_step_is_the_gradient_times_one_minus_inertia_when_nothing_is_screened() -> None:
    held = random_weights.small(PLAIN, inertia=0.7)
    before = held.weights
    step = random_weights.like(held, 1)
    held.update(step, share=0.5)
    for path, own in held.weights.items():
        torch.testing.assert_close(own.a, before[path].a + 0.15 * step[path].a)
        torch.testing.assert_close(own.b, before[path].b + 0.15 * step[path].b)


def test_a_step_follows_effective_inertia_and_phase_when_all_mechanisms_work() -> None:
    held = filled()
    start = random_weights.small().weights
    before, inertia, phase = held.weights, held.compute_effective_inertia(), held.phases()
    step = random_weights.like(held, 77, 0.1)
    held.update(step)
    for path, own in held.weights.items():
        for name in ("a", "b"):
            was, i, screened, g, s, now = (
                getattr(each[path], name).double()
                for each in (before, inertia, phase, step, start, held.weights)
            )
            assert 0.2 < float(screened.mean()) < 0.8
            assert float(i[screened == 0].unique()) == pytest.approx(0.5)
            assert float(i[screened == 1].min()) > 0.6 and float(i.max()) < 0.75
            moved = was + (1 - i) * g
            decay = torch.where(screened == 1, 0.0001, 0.01)
            torch.testing.assert_close(now, moved + decay * (s - moved), atol=1e-6, rtol=1e-5)
        assert own.rank == 4


def test_density_is_the_history_over_itself_and_its_mean() -> None:
    held = random_weights.small(dataclasses.replace(layer_settings.LayerSettings(), memory=0.9))
    steps = [random_weights.like(held, seed) for seed in (1, 2)]
    for step in steps:
        held.update(step)
    history = 0.09 * steps[0]["v"].b.abs() + 0.1 * steps[1]["v"].b.abs()
    density = history / (history + history.mean())
    expected = 0.5 + 0.25 * torch.where(density >= 0.5, density, 0.0)
    torch.testing.assert_close(held.compute_effective_inertia()["v"].b, expected)


def test_unused_parameters_return_to_the_start_and_screened_ones_stay_when_ticks_pass() -> None:
    held = random_weights.small()
    start = held.weights["q"].b
    step = random_weights.like(held, 1)
    step["q"].b[0] = 100.0  # One channel is moved far more than the others.
    held.update(step)
    first = held.weights["q"].b - start
    for _ in range(300):
        held.update({})
    left = (held.weights["q"].b - start) / first
    assert float(left[0].min()) == pytest.approx(0.9999**300, rel=1e-3)
    assert float(left[1:].max()) == pytest.approx(0.99**300, rel=1e-3)


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ({"use_inertia": False}, (1.0, True, True)),
        ({"use_density": False}, (0.5, False, True)),
        ({"use_screening": False}, (0.5, False, True)),
        ({"use_decay": False}, (0.5, True, False)),
    ],
)
def test_each_mechanism_is_gone_when_it_is_switched_off(
    switch: dict[str, bool], expected: tuple[float, bool, bool]
) -> None:
    held = random_weights.small(layer_settings.LayerSettings(**switch))
    step = random_weights.like(held, 1)
    held.update(step)
    inertia = held.compute_effective_inertia()["q"].a
    assert 1.0 - float(inertia.min()) == pytest.approx(expected[0])
    assert (len(inertia.unique()) > 1) is expected[1]
    before = held.weights
    held.update({})
    assert (not same(before, held.weights)) is expected[2]


def test_weights_that_were_handed_out_never_change_when_the_layer_does() -> None:
    held = filled()
    seen, copy = held.weights, {path: own.a.clone() for path, own in held.weights.items()}
    held.update(random_weights.like(held, 9))
    held.consolidate_circuit({"q": random_weights.like(held, 4)["q"]})
    held.release({"q": (0, 1)})
    assert all(torch.equal(seen[path].a, copy[path]) for path in copy)
    assert not same(seen, held.weights)
    with pytest.raises(TypeError):
        held.weights["q"] = seen["q"]  # type: ignore[index]


def test_a_bad_gradient_is_refused_and_changes_nothing() -> None:
    held = filled()
    before = held.weights
    good = random_weights.like(held, 1)
    bad = weights.Factors(good["q"].a.clone().fill_(math.nan), good["q"].b)
    with pytest.raises(errors.InvalidInputError, match="NaN"):
        held.update({"q": bad})
    with pytest.raises(errors.InvalidInputError, match="q: A"):
        held.update({"q": good["v"]})
    with pytest.raises(errors.NotFoundError, match="no module 'z'"):
        held.update({"z": good["q"]})
    with pytest.raises(errors.InvalidInputError, match="share"):
        held.update(good, share=-1.0)
    assert held.weights is before


def test_a_frozen_layer_does_not_change() -> None:
    held = filled()
    before = held.weights
    held.frozen = True
    held.update(random_weights.like(held, 1))
    held.maintain_homeostasis()
    assert held.weights is before
    with pytest.raises(errors.PreconditionError, match="frozen"):
        held.consolidate_circuit({})
    with pytest.raises(errors.PreconditionError, match="frozen"):
        held.release({})
    held.frozen = False
    held.update(random_weights.like(held, 1))
    assert held.weights is not before


def test_the_threshold_stays_within_its_bounds_when_it_is_set() -> None:
    held = filled()
    held.threshold = 7.0
    assert held.threshold == 0.9
    some = float(held.phases()["q"].a.mean())
    held.threshold = 0.2
    assert float(held.phases()["q"].a.mean()) > some


def test_a_state_is_restored_to_the_bit_and_goes_on_the_same_way() -> None:
    held, other = filled(), random_weights.small()
    held.compute_activity_mask({"q": torch.randn(5, 12)})
    held.consolidate_circuit({"v": random_weights.factors(torch.Generator(), (12, 20), 2)})
    held.threshold = 0.37
    other.restore(held.state())
    for _ in range(2):
        assert same(held.weights, other.weights)
        mine, theirs = held.state(), other.state()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        for each in (held, other):
            each.update(random_weights.like(held, 50, 0.3))
        assert held.maintain_homeostasis() == other.maintain_homeostasis()


def test_a_state_does_not_change_when_the_layer_goes_on() -> None:
    held = filled()
    state = held.state()
    copy = {name: value.clone() for name, value in state.items()}
    held.update(random_weights.like(held, 50))
    held.maintain_homeostasis()
    assert all(torch.equal(state[name], copy[name]) for name in state)


def test_a_state_of_another_layer_is_refused() -> None:
    held = filled()
    before = held.weights
    with pytest.raises(errors.IntegrityError, match="0/a"):
        held.restore(random_weights.small(rank=5).state())
    assert held.weights is before
