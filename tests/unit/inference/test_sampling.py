from __future__ import annotations

import collections

import pytest
import torch

from services.inference import sampling
from shared import errors

LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.5, 0.3])


def choose(sampler: sampling.Sampler) -> int:
    highest, likeliest = LOGITS.max(0)
    return sampler.choose(LOGITS, int(likeliest), float(highest))


def _draws(count: int = 4000, **fields) -> collections.Counter:
    sampler = sampling.Sampler(sampling.Sampling(**fields))
    return collections.Counter(choose(sampler) for _ in range(count))


def test_likeliest_token_is_taken_when_the_temperature_is_zero():
    assert _draws(5) == {1: 5}


def test_tokens_come_as_often_as_the_softmax_says_when_sampled():
    found = _draws(temperature=0.7, seed=5)
    expected = (LOGITS / 0.7).softmax(-1)
    for token, share in enumerate(expected):
        assert found[token] / 4000 == pytest.approx(float(share), abs=0.03)


def test_only_the_likeliest_come_when_top_k_or_top_p_say_so():
    assert set(_draws(temperature=2.0, top_k=2, seed=1)) == {1, 3}
    assert set(_draws(temperature=1.0, top_p=0.5, seed=1)) == {1}
    assert set(_draws(temperature=1.0, top_p=0.6, seed=1)) == {1, 3}


def test_draws_repeat_when_the_seed_is_the_same():
    def made(seed):
        sampler = sampling.Sampler(sampling.Sampling(temperature=1.0, seed=seed))
        return [choose(sampler) for _ in range(30)]

    assert made(7) == made(7) != made(8)
    assert made(None) != made(None)


def test_global_random_source_is_left_alone_when_sampling():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    _draws(10, temperature=1.0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ("",)}, r"stop\[0\]"),
        ({"stop": ("a", "x" * 201)}, r"stop\[1\]"),
        ({"stop": ("a",) * 17}, "stop has 17"),
    ],
)
def test_field_is_named_when_it_is_out_of_range(fields, named):
    with pytest.raises(errors.InvalidInputError, match=named):
        sampling.Sampling(**fields).check()


@pytest.mark.parametrize(
    ("stops", "pieces", "told"),
    [
        ((), ["a", "b"], ["a", "b"]),
        (("END",), ["a E", "ND b", "c"], ["a ", "", ""]),
        (("END",), ["a E", "x"], ["a ", "Ex"]),
        (("aab",), ["aa", "a", "b"], ["", "a", ""]),
        (("b", "ab"), ["xa", "b"], ["x", ""]),
        (("\n",), ["one\ntwo"], ["one"]),
        (("END", "stop"), ["st", "op"], ["", ""]),
    ],
)
def test_text_is_told_up_to_the_first_stop_string(stops, pieces, told):
    watch = sampling.StopWatch(stops)
    assert [watch.add(piece) for piece in pieces] == told


def test_held_text_is_told_when_the_answer_ends_within_a_beginning():
    watch = sampling.StopWatch(("END",))
    assert watch.add("the EN") == "the "
    assert watch.rest() == "EN" and watch.rest() == "" and not watch.stopped
