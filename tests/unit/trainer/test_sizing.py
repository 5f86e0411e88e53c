from __future__ import annotations

import pytest

from services.trainer import sizing
from shared import errors

# Qwen2.5-7B: 28 layers, hidden 3584, 4 key/value heads of 128, intermediate 18944.
LARGE = {
    f"model.layers.{n}.{kind}": shape
    for n in range(28)
    for kind, shape in (
        ("self_attn.q_proj", (3584, 3584)),
        ("self_attn.k_proj", (3584, 512)),
        ("self_attn.v_proj", (3584, 512)),
        ("self_attn.o_proj", (3584, 3584)),
        ("mlp.gate_proj", (3584, 18944)),
        ("mlp.up_proj", (3584, 18944)),
        ("mlp.down_proj", (18944, 3584)),
    )
}
SMALL = {f"model.layers.{n}.q_proj": (100, 100) for n in range(4)}
BUDGET = 10_000_000


def elements(plan: sizing.Plan, shapes: dict[str, tuple[int, int]]) -> int:
    return sum(rank * sum(shapes[path]) for path, rank in plan.ranks.items())


def test_a_card_is_as_the_recipe_asks_when_it_fits() -> None:
    ranks = dict.fromkeys(SMALL, 8) | {"model.layers.1.q_proj": 2}
    plan = sizing.fit(SMALL, ranks, "float32", BUDGET)
    assert plan.ranks == ranks and plan.dtype == "float32"
    assert plan.size_bytes == (3 * 8 + 2) * 200 * 4 + 4 * 512
    assert (
        plan.why == "0.02 MB of at most 10.00 MB with ranks 2 to 8 in float32: as the recipe asks"
    )


def test_the_dtype_gives_way_before_the_ranks() -> None:
    plan = sizing.fit(SMALL, dict.fromkeys(SMALL, 8), "float32", 15_000)
    assert plan.ranks == dict.fromkeys(SMALL, 8) and plan.dtype == "float16"
    assert plan.why.endswith("float32 became float16")


def test_the_highest_ranks_give_way_before_layers_do() -> None:
    ranks = dict.fromkeys(SMALL, 8) | {"model.layers.1.q_proj": 5}
    plan = sizing.fit(SMALL, ranks, "float16", 11_900)
    assert plan.ranks == dict.fromkeys(SMALL, 6) | {"model.layers.1.q_proj": 5}
    assert plan.size_bytes <= 11_900
    assert sizing.fit(SMALL, ranks, "float16", 11_900 + 1_300).ranks["model.layers.0.q_proj"] == 7


def test_upper_layers_are_kept_when_no_rank_of_all_fits() -> None:
    plan = sizing.fit(LARGE, dict.fromkeys(LARGE, 8), "bfloat16", BUDGET)
    numbers = sorted({sizing.layer_number(path) for path in plan.ranks})
    assert numbers == list(range(15, 28)), "no more and no fewer than fit"
    assert set(plan.ranks.values()) == {sizing.LEAST_RANK}
    assert 2 * elements(plan, LARGE) < plan.size_bytes <= BUDGET
    assert "ranks above 8" not in plan.why
    assert "ranks above 4 became 4; the upper 13 of 28 layers were kept" in plan.why


def test_layers_outside_of_the_decoder_are_kept() -> None:
    shapes = SMALL | {"lm_head": (100, 300)}
    plan = sizing.fit(shapes, dict.fromkeys(shapes, 4), "float16", 8_000)
    assert "lm_head" in plan.ranks and "model.layers.0.q_proj" not in plan.ranks


def test_what_the_text_takes_counts() -> None:
    ranks = dict.fromkeys(SMALL, 4)
    whole = sizing.fit(SMALL, ranks, "float16", 9_000)
    assert len(whole.ranks) == 4
    assert len(sizing.fit(SMALL, ranks, "float16", 9_000, aside_bytes=1_000).ranks) == 3


def test_the_message_names_the_setting_when_nothing_fits() -> None:
    with pytest.raises(errors.ConfigError, match=r"card_budget_mb.*0\.00 MB.*target_modules"):
        sizing.fit(SMALL, dict.fromkeys(SMALL, 4), "float16", 1_000)
