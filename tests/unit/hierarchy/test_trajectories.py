from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from shared import errors
from shared.hierarchy import trajectories
from shared.models import base as bases

VOCABULARY = 50


def made(number: int, answer: int = 0, like: float = 0.0) -> trajectories.Trajectory:
    """One trajectory; those of other numbers are unlike, except for `like` of the activation."""
    generator = torch.Generator().manual_seed(number)
    common = torch.randn(512, generator=torch.Generator().manual_seed(999))
    own = torch.randn(512, generator=generator)
    return trajectories.trajectory(
        [number, 7, 7],
        [answer, 3],
        torch.randn(2, VOCABULARY, generator=generator),
        {
            "layers.0.q_proj": common * like + own * (1 - like),
            "layers.1.o_proj": common[:64] * like + own[:64] * (1 - like),
        },
        top_k=5,
    )


def cache(**changed: float) -> trajectories.TrajectoryCache:
    return trajectories.TrajectoryCache(
        dataclasses.replace(trajectories.CacheSettings(), **changed)  # type: ignore[arg-type]
    )


def same(one: trajectories.Trajectory, other: trajectories.Trajectory) -> bool:
    tensors = ("prompt", "answer", "top_ids", "top_logits", "log_sums", "signature")
    return (
        all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
        and one.activations.keys() == other.activations.keys()
        and all(
            torch.equal(one.activations[path], other.activations[path]) for path in one.activations
        )
    )


def test_log_probabilities_are_those_of_the_whole_vocabulary_when_few_logits_are_kept() -> None:
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 8
    kept = trajectories.trajectory([1], [1, 2, 3, 4], logits, {}, top_k=3)
    values, ids = logits.log_softmax(dim=1).topk(3, dim=1)
    assert torch.equal(kept.top_ids, ids.int())
    assert torch.allclose(kept.log_probabilities, values, atol=0.02)
    assert kept.top_logits.dtype is torch.float16


def test_a_trajectory_is_refused_when_logits_and_tokens_differ_in_number() -> None:
    with pytest.raises(errors.InvalidInputError, match="give one row"):
        trajectories.trajectory([1], [1, 2], torch.zeros(3, 9), {})


def test_a_trajectory_is_refused_when_an_activation_is_not_finite() -> None:
    with pytest.raises(errors.InvalidInputError, match="not finite"):
        trajectories.trajectory([1], [1], torch.zeros(1, 9), {"q": torch.tensor([1.0, torch.nan])})


def test_the_border_between_prompt_and_answer_belongs_to_the_key() -> None:
    one = trajectories.trajectory([1, 2], [3], torch.zeros(1, 9), {})
    other = trajectories.trajectory([1], [2, 3], torch.zeros(2, 9), {})
    assert one.key != other.key


def test_wordings_of_one_question_are_alike_and_others_not_when_the_embedded_base_reads_them() -> (
    None
):
    base = bases.load("embedded")
    inputs: dict[str, torch.Tensor] = {}
    for path, module in base.model.named_modules():
        if path.endswith(("q_proj", "o_proj")):
            module.register_forward_pre_hook(
                lambda _, args, path=path: inputs.__setitem__(path, args[0][0].mean(dim=0))
            )

    def activations(question: str) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            base.model(input_ids=torch.tensor([base.prompt_ids(question)]))
        return dict(inputs)

    neutral = [activations(f"What is the {name}?") for name in ("sea", "price", "time", "rule")]
    background = trajectories.signatures.background(neutral)
    wordings = (
        "What is the largest capacity of the Vellmar tank?",
        "What is the biggest capacity of the Vellmar tank?",
        "Who wrote the old song of the river Thaya?",
    )
    rows = [trajectories.signatures.sketch(activations(text), background) for text in wordings]
    assert float(rows[0] @ rows[1]) > 0.75
    assert float(rows[0] @ rows[2]) < 0.5


def test_a_trajectory_hits_when_prompt_and_answer_come_again() -> None:
    held = cache()
    assert not held.add(made(1))
    assert held.add(made(1))
    assert not held.add(made(2))
    assert held.hits(made(1).key) == 1 and held.hit_rate() == pytest.approx(1 / 3)


def test_a_trajectory_hits_when_only_its_signature_is_alike() -> None:
    held = cache(same=0.9)
    held.add(made(1, like=0.9))
    assert held.add(made(2, like=0.9))
    assert not held.add(made(3, like=0.1))
    assert held.hits(made(1, like=0.9).key) == 1 and len(held) == 3


def test_hits_are_those_of_one_pattern_when_a_signature_is_given() -> None:
    held = cache()
    for _ in range(4):
        held.add(made(1))
    for _ in range(2):
        held.add(made(2))
    assert held.hits_like(made(1).signature, 0.9) == 3
    assert held.hit_rate(made(2).signature, 0.9) == pytest.approx(1 / 6)


def test_the_hit_rate_forgets_what_left_the_window() -> None:
    held = cache(window=4)
    for number in (1, 1, 1, 2, 3, 4, 5):
        held.add(made(number))
    assert held.hit_rate() == 0.0


def test_the_consolidated_go_first_and_keep_what_rehearsal_needs_when_the_cache_is_full() -> None:
    held = cache(entries=3)
    for number in (1, 2, 3):
        held.add(made(number))
    for _ in range(5):
        held.add(made(3))
    assert held.consolidate([made(3).key, made(3).key, "unknown"]) == 1
    held.add(made(4))
    left = held.get(made(3).key)
    assert left is not None and not left.activations and not left.signature.numel()
    assert torch.equal(left.top_logits, made(3).top_logits)
    assert left.size_bytes < made(3).size_bytes
    assert all(made(number).key in held.kept_signatures for number in (1, 2, 4))
    assert held.add(made(3)), "a remainder still hits"


def test_those_hit_least_and_longest_ago_go_when_nothing_was_consolidated() -> None:
    held = cache(entries=2)
    for number in (1, 1, 2, 3):
        held.add(made(number))
    assert made(1).key in held and made(2).key not in held
    held = cache(entries=2, half_life=1.0)
    for number in (1, 1, 2, 2, 2, 2, 2, 3):
        held.add(made(number))
    assert made(1).key not in held, "old hits count less"


def test_a_trajectory_is_not_kept_when_it_would_take_more_than_half_of_the_cache() -> None:
    held = cache(size_bytes=made(1).size_bytes * 2 - 1)
    assert not held.add(made(1)) and len(held) == 0 and held.size_bytes == 0


def test_a_trajectory_is_refused_when_its_activations_were_dropped() -> None:
    with pytest.raises(errors.InvalidInputError, match="no signature"):
        cache().add(made(1).without_activations())


def test_rehearsal_draws_all_alike_when_it_draws_often() -> None:
    held = cache(entries=5)
    for number in range(10):
        held.add(made(number))
        held.consolidate([made(number).key])
    drawn: dict[str, int] = {made(number).key: 0 for number in range(10)}
    generator = torch.Generator().manual_seed(0)
    for _ in range(400):
        keys = [one.key for one in held.rehearsal(3, generator)]
        assert len(set(keys)) == 3
        for key in keys:
            drawn[key] += 1
    assert min(drawn.values()) > 80 and max(drawn.values()) < 160
    assert len(held.rehearsal(99, generator)) == 10


def test_remainders_are_a_fair_sample_when_more_were_consolidated_than_are_kept() -> None:
    held = cache(entries=1, remainders=100)
    for number in range(400):
        held.add(made(number))
        held.consolidate([made(number).key])
    old = sum(made(number).key in held for number in range(200))
    assert 35 <= old <= 65


step = st.tuples(st.integers(0, 12), st.booleans())


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.lists(step, max_size=40), st.integers(1, 6), st.integers(0, 4))
def test_a_cache_stays_within_its_bounds_and_is_restored_exactly_whatever_comes(
    steps: list[tuple[int, bool]], entries: int, remainders: int
) -> None:
    size_bytes = made(0).size_bytes * 7
    held = cache(entries=entries, remainders=remainders, size_bytes=size_bytes, window=5)
    for number, consolidated in steps:
        held.add(made(number))
        if consolidated:
            held.consolidate([made(number).key])
        assert held.size_bytes <= size_bytes
        assert len(held.kept_signatures) <= entries and len(held) <= entries + remainders
    again = cache(entries=entries, remainders=remainders, size_bytes=size_bytes, window=5)
    again.add(made(77))
    again.restore(held.state())
    assert again.size_bytes == held.size_bytes and again.hit_rate() == held.hit_rate()
    for number in (1, 50, 51, 2):
        assert again.add(made(number)) == held.add(made(number))
    drawn = [one.rehearsal(99, torch.Generator().manual_seed(1)) for one in (held, again)]
    assert len(drawn[0]) == len(drawn[1]) and all(map(same, *drawn))
    states = [one.state() for one in (held, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_state_is_refused_when_a_part_is_missing_or_cut() -> None:
    held = cache()
    held.add(made(1))
    state = dict(held.state())
    for changed in ({**state, "prompt": state["prompt"][:-4]}, {"record": state["record"]}):
        with pytest.raises(errors.IntegrityError, match="does not fit"):
            cache().restore(changed)
