from __future__ import annotations

import dataclasses

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from shared import errors
from shared.hierarchy import circuits, levels, signatures, trajectories, weights
from shared.models import base as bases
from tests.unit.hierarchy import streams

PATHS = ("layers.0.q_proj", "layers.1.o_proj")
RANK = 4
PLANTED = {PATHS[0]: (1, 3), PATHS[1]: (0,)}
"""Channels that answer to the pattern, of eight."""
INPUT_SIZE = 24


def layer(seed: int = 5) -> dict[str, weights.Factors]:
    generator = streams.seeded(seed)
    return {
        path: weights.Factors(
            torch.randn(INPUT_SIZE, RANK, generator=generator),
            torch.nn.functional.normalize(torch.randn(RANK, 16, generator=generator), dim=1),
        )
        for path in PATHS
    }


def active(planted: bool) -> dict[str, torch.Tensor]:
    strong = {path: PLANTED[path] if planted else () for path in PATHS}
    return {
        path: torch.tensor([1.0 if at in strong[path] else 0.1 for at in range(RANK)])
        for path in PATHS
    }


def detector(
    level: levels.Level = levels.Level.CONTEXT, **changed: float
) -> circuits.CircuitDetector:
    settings = dataclasses.replace(circuits.CircuitSettings(), **changed)  # type: ignore[arg-type]
    return circuits.CircuitDetector("anna", level, settings)


def generation(number: int, vector: torch.Tensor) -> trajectories.Trajectory:
    return dataclasses.replace(
        trajectories.trajectory([number], [1], torch.zeros(1, 4), {}), signature=vector.half()
    )


def watch(
    seen: circuits.CircuitDetector,
    cache: trajectories.TrajectoryCache | None = None,
    period: int = 5,
    length: int = 100,
    pattern: int = 1,
) -> torch.Tensor:
    """Shows a detector, and a cache, a stream with one pattern; gives the pattern's signature."""
    stream = streams.unlike(length, streams.seeded(pattern))
    planted = stream[0].clone()
    for at in range(length):
        here = at % period == 0
        signature = planted if here else stream[at]
        seen.observe(signature, active(here))
        if cache is not None:
            cache.add(generation(-1 if here else 1000 * pattern + at, signature))
    return planted


def test_the_channels_that_answer_to_a_pattern_are_offered_when_it_recurs() -> None:
    seen, cache, held = detector(), trajectories.TrajectoryCache(), layer()
    watch(seen, cache)
    [circuit] = seen.detect(held, cache)
    assert circuit.channels == PLANTED
    assert (circuit.agent, circuit.level) == ("anna", levels.Level.CONTEXT)
    assert circuit.autocorrelation == pytest.approx(0.95, abs=0.02) and circuit.hits == 19
    for path, numbers in PLANTED.items():
        pieces = circuit.pieces[path]
        assert torch.equal(pieces.a, held[path].a[:, list(numbers)])
        assert torch.equal(pieces.b, held[path].b[list(numbers)])
    assert circuit.size == 3 * (INPUT_SIZE + 16)


def test_a_channel_counts_by_its_row_of_b_as_much_as_by_its_activity() -> None:
    seen, held = detector(level=levels.Level.CONTEXT), layer()
    held[PATHS[0]].b[1] = 0
    held[PATHS[0]].b[2] *= 100
    watch(seen)
    [circuit] = seen.detect(held, trajectories.TrajectoryCache())
    assert circuit.channels == {PATHS[0]: (2,)}


def test_the_smallest_set_is_offered_that_explains_the_share_when_the_layer_answers() -> None:
    held = layer()
    for share, most, expected in ((0.3, 16, 1), (0.6, 16, 2), (0.9, 16, 3), (0.9, 2, 2)):
        seen = detector(energy_share=share, most_channels=most)
        watch(seen)
        [circuit] = seen.detect(held, trajectories.TrajectoryCache())
        assert sum(map(len, circuit.channels.values())) == expected


def test_nothing_is_offered_when_the_layer_answers_to_nothing() -> None:
    untouched = {
        path: weights.Factors(factors.a, torch.zeros_like(factors.b))
        for path, factors in layer().items()
    }
    seen = detector()
    watch(seen)
    assert seen.detect(untouched, trajectories.TrajectoryCache()) == []


def test_nothing_is_offered_when_no_pattern_recurs() -> None:
    seen = detector()
    for signature in streams.unlike(100, streams.seeded(9)):
        seen.observe(signature, active(True))
    assert seen.detect(layer(), trajectories.TrajectoryCache()) == []


def test_a_circuit_is_offered_once_when_it_waits_and_again_when_it_was_dropped() -> None:
    seen, cache = detector(), trajectories.TrajectoryCache()
    watch(seen)
    [first] = seen.detect(layer(), cache)
    assert seen.detect(layer(), cache) == [] and seen.waiting == (first.id,)
    seen.dropped(first.id)
    [second] = seen.detect(layer(), cache)
    assert second.channels == first.channels and second.id != first.id


def test_a_pattern_rests_when_its_circuit_moved_and_its_channels_are_silent() -> None:
    seen, cache = detector(rest=30, most_channels=3), trajectories.TrajectoryCache()
    planted = watch(seen, cache)
    [circuit] = seen.detect(layer(), cache)
    assert seen.moved(circuit.id, cache) == 1, "twenty of one prompt and answer are one trajectory"
    assert seen.moved(circuit.id, cache) == 0, "a settlement that comes twice"
    assert seen.detect(layer(), cache) == [] and seen.waiting == ()
    for at in range(30):
        seen.observe(
            planted if at % 5 == 0 else streams.units(1, streams.seeded(at))[0], active(False)
        )
    [again] = seen.detect(layer(), cache)
    assert not any(set(again.channels.get(path, ())) & set(PLANTED[path]) for path in PATHS)


def test_no_channel_belongs_to_two_circuits_when_both_wait() -> None:
    seen, cache = detector(least_share=0.0), trajectories.TrajectoryCache()
    pair = streams.units(2, streams.seeded(3))
    for at in range(100):
        seen.observe(pair[at % 2], active(True))
    both = seen.detect(layer(), cache)
    taken = [
        (path, number)
        for one in both
        for path, numbers in one.channels.items()
        for number in numbers
    ]
    assert len(both) == 2 and len(taken) == len(set(taken))
    # What is left answers to a few percent of the response only.
    strict = detector()
    for at in range(100):
        strict.observe(pair[at % 2], active(True))
    assert len(strict.detect(layer(), cache)) == 1


def test_no_more_is_offered_when_as_many_wait_as_may() -> None:
    seen = detector(most_waiting=2, most_channels=1, least_share=0.0)
    four = streams.units(4, streams.seeded(3))
    for at in range(100):
        seen.observe(four[at % 4], active(True))
    assert len(seen.detect(layer(), trajectories.TrajectoryCache())) == 2


@pytest.mark.parametrize(
    ("period", "top"),
    [(5, levels.Level.SWARM), (3, levels.Level.DOMAIN)],
)
def test_a_circuit_may_travel_as_far_as_its_hit_rate_lets_it(
    period: int, top: levels.Level
) -> None:
    seen, cache = detector(level=levels.Level.AGENT), trajectories.TrajectoryCache()
    watch(seen, cache, period=period)
    [circuit] = seen.detect(layer(), cache)
    assert circuit.top is top


def test_an_agent_layer_keeps_its_circuit_when_the_cache_never_hits() -> None:
    for level, offered in ((levels.Level.AGENT, 0), (levels.Level.CONTEXT, 1)):
        seen = detector(level=level)
        watch(seen)
        found = seen.detect(layer(), trajectories.TrajectoryCache())
        assert [one.top for one in found] == [levels.Level.AGENT] * offered


def test_ids_are_unique_when_both_layers_of_an_agent_offer_circuits() -> None:
    cache, ids = trajectories.TrajectoryCache(), []
    for level in levels.PRIVATE:
        seen = detector(level=level)
        for pattern in range(12):
            watch(seen, cache, period=3, pattern=pattern)
            for circuit in seen.detect(layer(), cache):
                ids.append(circuit.id)
                seen.dropped(circuit.id)
    assert len(ids) == len(set(ids)) > 20
    assert all(one.startswith("anna:") for one in ids)


def test_pieces_are_those_of_now_when_a_circuit_is_refreshed() -> None:
    seen = detector()
    watch(seen)
    [circuit] = seen.detect(layer(), trajectories.TrajectoryCache())
    later = circuits.refreshed(circuit, layer(seed=6))
    for path, numbers in circuit.channels.items():
        assert torch.equal(later.pieces[path].b, layer(seed=6)[path].b[list(numbers)])
    assert later.channels == circuit.channels and later.id == circuit.id


def test_activity_is_that_of_the_channels_when_positions_have_other_signs() -> None:
    inputs = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
    assert circuits.activity(inputs, torch.eye(2)).tolist() == pytest.approx([1.0, 2**0.5])


@pytest.mark.parametrize("wrong", ["ranks", "modules", "nan", "size"])
def test_an_observation_is_refused_when_it_is_not_like_those_before(wrong: str) -> None:
    seen = detector()
    seen.observe(torch.zeros(streams.SIZE), active(False))
    changed = active(False)
    signature = torch.zeros(streams.SIZE + (wrong == "size"))
    if wrong == "ranks":
        changed[PATHS[0]] = torch.zeros(RANK + 1)
    elif wrong == "modules":
        del changed[PATHS[0]]
    elif wrong == "nan":
        changed[PATHS[0]][0] = torch.nan
    with pytest.raises(errors.InvalidInputError, match="anna"):
        seen.observe(signature, changed)


def test_detection_is_refused_when_the_layer_has_other_modules() -> None:
    seen = detector()
    watch(seen)
    with pytest.raises(errors.InvalidInputError, match="other modules"):
        seen.detect({PATHS[0]: layer()[PATHS[0]]}, trajectories.TrajectoryCache())


def test_hardly_anything_is_offered_when_random_streams_are_asked_about_again_and_again() -> None:
    false = 0
    for seed in range(40):
        seen, cache = detector(), trajectories.TrajectoryCache()
        for at, signature in enumerate(streams.topics(240, 8, streams.seeded(seed))):
            seen.observe(signature, active(True))
            if at % 10 == 9:
                false += len(seen.detect(layer(), cache)) > 0
                for name in seen.waiting:
                    seen.dropped(name)
    assert false / (40 * 24) < 0.05


step = st.tuples(st.integers(0, 4), st.sampled_from(["none", "detect", "moved", "dropped"]))


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(st.lists(step, max_size=120), st.integers(0, 3))
def test_a_detector_is_restored_exactly_whatever_came(
    steps: list[tuple[int, str]], more: int
) -> None:
    pool = streams.units(5, streams.seeded(0))
    small = {"window": 40, "rest": 5, "most_channels": 1, "least_share": 0.0}
    seen, cache = detector(**small), trajectories.TrajectoryCache()
    for number, then in steps:
        seen.observe(pool[number], active(number == 0))
        if then == "detect":
            seen.detect(layer(), cache)
        for name in seen.waiting[:1]:
            if then == "moved":
                seen.moved(name)
            elif then == "dropped":
                seen.dropped(name)
    again = detector(**small)
    again.observe(torch.ones(7), {"other": torch.ones(1)})
    again.restore(seen.state())
    for one in (seen, again):
        for number in range(more):
            one.observe(pool[number], active(True))
    found = [one.detect(layer(), cache) for one in (seen, again)]
    assert [c.id for c in found[0]] == [c.id for c in found[1]]
    assert [c.channels for c in found[0]] == [c.channels for c in found[1]]
    states = [one.state() for one in (seen, again)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_question_that_comes_again_is_found_when_the_embedded_base_reads_it_among_others() -> (
    None
):
    base = bases.load("embedded")
    inputs: dict[str, torch.Tensor] = {}
    paths = [path for path, _ in base.model.named_modules() if path.endswith("q_proj")]
    for path in paths:
        base.model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, path=path: inputs.__setitem__(path, args[0][0])
        )
    generator = streams.seeded(0)
    held = {
        path: weights.Factors(torch.randn(256, RANK, generator=generator), torch.ones(RANK, 8))
        for path in paths
    }
    wordings = (
        "What is the largest capacity of the Vellmar tank?",
        "What is the biggest capacity of the Vellmar tank?",
    )
    words = "sea price song rule river tower garden letter winter market".split()
    seen = circuits.CircuitDetector("anna", levels.Level.CONTEXT)
    for at in range(60):
        word, other = words[at % 10], words[(at * at + at // 10) % 10]
        text = (
            wordings[at // 6 % 2]
            if at % 6 == 0
            else f"Who saw the {word} of {other} {at}, and why?"
        )
        with torch.no_grad():
            base.model(input_ids=torch.tensor([base.prompt_ids(text)]))
        signature = signatures.sketch({path: value.mean(dim=0) for path, value in inputs.items()})
        seen.observe(
            signature, {path: circuits.activity(inputs[path], held[path].a) for path in paths}
        )
    recurring = [one for one in seen.patterns() if one.recurrence >= 0.7]
    planted = torch.arange(60) % 6 == 0
    assert any(torch.equal(one.present, planted) for one in recurring)
