"""The interaction history: what circuits bring counts, and never without bound."""

from __future__ import annotations

import torch

from shared.hierarchy import importance, layer_settings, stacks, weights

LAYOUT = stacks.Layout({"q": weights.Shape(6, 5), "v": weights.Shape(6, 5)}, 4)
SETTINGS = layer_settings.LayerSettings()


def made(seed: int | None = 0) -> importance.Importance:
    held = importance.Importance(LAYOUT, SETTINGS)
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        for stack in held.history:
            for part in stack.both:
                part.copy_(torch.rand(part.shape, generator=draw))
    return held


def largest(held: importance.Importance) -> float:
    return max(float(part.max()) for stack in held.history for part in stack.both)


def test_history_never_rises_above_what_moved_most_however_many_circuits_come() -> None:
    held = made()
    before = largest(held)
    for at in range(5000):
        held.raise_channels(0, at % 2, [at % 4, (at + 1) % 4], change=1e3)
    assert largest(held) == before


def test_channels_of_a_circuit_are_screened_and_others_stay_so() -> None:
    held = made()
    others = held.history[0].a[0][:, [0, 1, 3]].clone()
    held.history[0].a[0][:, 2] = 0.0
    held.raise_channels(0, 0, [2], change=0.1)
    density = held.density(held.history[0].a)[0]
    assert bool((density[:, 2] >= SETTINGS.threshold).all())
    assert torch.equal(held.history[0].a[0][:, [0, 1, 3]], others)
    assert torch.equal(held.history[0].a[1], made().history[0].a[1])


def test_what_a_channel_had_already_is_not_lowered_by_a_circuit() -> None:
    held = made()
    before = held.history[0].b[0].clone()
    held.raise_channels(0, 0, [1, 3], change=0.0)
    assert bool((held.history[0].b[0] >= before).all())


def test_first_circuit_of_a_layer_that_never_moved_counts_by_its_size() -> None:
    held = made(seed=None)
    held.raise_channels(0, 1, [0], change=2.0)
    expected = 2.0 * (1.0 - SETTINGS.memory)
    assert torch.allclose(held.history[0].a[1][:, 0], torch.full((6,), expected))
    assert float(held.history[0].a[1][:, 1:].max()) == 0.0
    for _ in range(100):
        held.raise_channels(0, 1, [1], change=1e6)
    assert largest(held) <= expected * 1.01
