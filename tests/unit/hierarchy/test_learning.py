from __future__ import annotations

import functools

import pytest
import torch

from shared.hierarchy import layer, learning, levels, stack, weights
from shared.hierarchy.levels import Level
from shared.lora import manager as managers
from shared.models import base as bases

RECIPE = learning.Recipe(steps=1, rows=2, rehearsed_rows=1, held_rows=1, learning_rate=1e-3)


@functools.cache
def base() -> bases.BaseModel:
    return bases.load(bases.EMBEDDED)


@functools.cache
def manager() -> managers.LoRAManager:
    return managers.LoRAManager(base().model, base().fingerprint)


def fresh() -> stack.Stack:
    shapes = {
        path: weights.Shape(256, 256) for path in manager().target_paths(levels.DEFAULT_KINDS)
    }
    layers = {
        level: layer.DynamicLoRALayer(level, shapes, spec, seed=1).weights
        for level, spec in levels.DEFAULT_SPECS.items()
    }
    return stack.Stack(0, layers)


def lesson(question: str, answer: str) -> learning.Lesson:
    return learning.Lesson(tuple(base().prompt_ids(question)), tuple(base().answer_ids(answer)))


KEY = lesson("Where is the spare key of the boat house?", "Under the third step.")


def one_round(
    layers: stack.Stack,
    recipe: learning.Recipe = RECIPE,
    moments: learning.Moments | None = None,
    penalty: learning.Penalty | None = None,
) -> learning.Round:
    found = learning.Round(
        base().model,
        manager(),
        layers,
        levels.DEFAULT_SPECS,
        recipe,
        base().tokenizer.pad_token_id,
        moments,
    )
    for _ in found.steps([KEY], [], seed=0, penalty=penalty):
        pass
    return found


def moved(layers: stack.Stack, learned: learning.Learned) -> stack.Stack:
    """Every layer by its share of its gradient, as `DynamicLoRALayer.update` moves it."""
    after = {}
    for level, before in layers.layers.items():
        share = 1.0 - levels.DEFAULT_SPECS[level].inertia
        change = learned.gradients[level]
        after[level] = {
            path: weights.Factors(was.a + share * change[path].a, was.b + share * change[path].b)
            for path, was in before.items()
        }
    return stack.Stack(layers.version + 1, after)


def test_round_leaves_layers_and_model_as_they_were() -> None:
    layers = fresh()
    before = {
        level: {path: factors.b.clone() for path, factors in of_level.items()}
        for level, of_level in layers.layers.items()
    }
    one_round(layers)
    assert all(
        torch.equal(factors.b, before[level][path])
        for level, of_level in layers.layers.items()
        for path, factors in of_level.items()
    )
    assert manager().list_cards() == [] and manager().active is None


def test_gradient_is_what_a_layer_without_inertia_would_have_moved() -> None:
    learned = one_round(fresh(), learning.Recipe(steps=1, shared_share=0.0)).learned()
    for of_level in learned.gradients.values():
        steps = torch.cat([factors.b.flatten() for factors in of_level.values()]).abs()
        # The first step of Adam is the learning rate, by the sign of the gradient.
        assert steps.median() == pytest.approx(1e-3, rel=0.05)


def test_steps_of_the_shared_layers_alone_move_no_private_layer() -> None:
    learned = one_round(fresh(), learning.Recipe(steps=2, shared_share=1.0)).learned()
    sizes = {level: weights.norm(of_level) for level, of_level in learned.gradients.items()}
    changes = {
        level: max(float(factors.b.abs().max()) for factors in of_level.values())
        for level, of_level in learned.gradients.items()
    }
    assert all(changes[level] > 0 for level in levels.SHARED)
    assert all(changes[level] == sizes[level] == 0 for level in levels.PRIVATE)


def test_answer_is_right_after_some_rounds_and_the_bare_model_stays_as_it_was() -> None:
    layers, moments = fresh(), None
    pad = base().tokenizer.pad_token_id
    assert learning.are_right(base().model, [KEY], pad) == [False]
    for _ in range(4):
        found = one_round(layers, learning.Recipe(steps=8), moments)
        layers, moments = moved(layers, found.learned()), found.moments()
    with learning.answering_with(manager(), layers):
        assert learning.are_right(base().model, [KEY], pad) == [True]
    assert learning.are_right(base().model, [KEY], pad) == [False]


def test_equal_rounds_are_equal_and_moments_make_another_one() -> None:
    layers = fresh()
    first = one_round(layers)
    again, later = one_round(layers), one_round(layers, moments=first.moments())

    def swarm(found: learning.Round) -> torch.Tensor:
        return torch.cat([
            factors.b.flatten() for factors in found.learned().gradients[Level.SWARM].values()
        ])  # fmt: skip

    assert torch.equal(swarm(first), swarm(again))
    assert not torch.equal(swarm(first), swarm(later))


def test_nothing_is_learned_without_anything_to_learn() -> None:
    found = learning.Round(base().model, manager(), fresh(), levels.DEFAULT_SPECS, RECIPE, pad_id=0)
    assert list(found.steps([], [], seed=0)) == []
    assert manager().list_cards() == []


def test_penalty_keeps_layers_where_they_are_when_it_is_large() -> None:
    def stays(now: learning.Trained) -> torch.Tensor:
        return 1e6 * sum(
            ((factors.b**2).sum() for factors in now[Level.SWARM].values()), torch.zeros(())
        )

    recipe = learning.Recipe(steps=4, shared_share=0.0)
    free = one_round(fresh(), recipe).learned().gradients[Level.SWARM]
    held = one_round(fresh(), recipe, penalty=stays).learned().gradients[Level.SWARM]

    def size(of_level: weights.Delta) -> float:
        return sum(float(factors.b.norm()) for factors in of_level.values())

    assert size(held) < 0.7 * size(free)


def test_squared_gradients_are_means_over_lessons() -> None:
    found = one_round(fresh())
    one = found.squared_gradients([KEY])
    twice = found.squared_gradients([KEY, KEY])
    for path, factors in one[Level.SWARM].items():
        assert torch.allclose(factors.a, twice[Level.SWARM][path].a)
        assert bool((factors.a >= 0).all())
