from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import torch

from shared import errors
from shared.flight import snapshots
from shared.hierarchy import messages, packing, weights, wire
from shared.hierarchy.levels import Level
from tests.unit.hierarchy import making

WHOLE = making.submission(circuits=(making.circuit("ada:1"), making.circuit("ada:2", seed=1)))


def same(one: weights.Weights, other: weights.Weights) -> bool:
    return list(one) == list(other) and all(
        torch.equal(one[path].a, other[path].a) and torch.equal(one[path].b, other[path].b)
        for path in one
    )


def test_submission_comes_back_to_the_last_bit() -> None:
    read = wire.submission_from_bytes(wire.submission_to_bytes(WHOLE), making.FRAME)
    for parts, wanted in ((read.shared, WHOLE.shared), (read.private, WHOLE.private)):
        assert list(parts) == list(wanted)
        assert all(same(parts[level], wanted[level]) for level in wanted)
    for circuit, meant in zip(read.circuits, WHOLE.circuits, strict=True):
        assert same(circuit.pieces, meant.pieces)
        assert dataclasses.replace(circuit, pieces=meant.pieces) == meant
    plain = {"shared": {}, "private": {}, "circuits": ()}
    assert dataclasses.replace(read, **plain) == dataclasses.replace(WHOLE, **plain)  # type: ignore[arg-type]


def test_bytes_are_equal_when_content_is_equal_and_its_order_is_not() -> None:
    turned = dataclasses.replace(
        WHOLE,
        shared={
            level: dict(reversed(part.items())) for level, part in reversed(WHOLE.shared.items())
        },
        private=dict(reversed(WHOLE.private.items())),
    )
    data = wire.submission_to_bytes(WHOLE)
    assert wire.submission_to_bytes(turned) == data
    assert wire.submission_to_bytes(wire.submission_from_bytes(data, making.FRAME)) == data


def test_bytes_are_equal_when_tensors_lie_differently_in_memory() -> None:
    pair = making.factors(weights.Shape(4, 3), 2, torch.Generator().manual_seed(0))
    turned = weights.Factors(pair.a.T.contiguous().T, pair.b)
    packed = [packing.pack({"l": wire.named({"m": one})}, {}) for one in (pair, turned)]
    assert not turned.a.is_contiguous() and packed[0] == packed[1]


def test_what_is_read_is_aligned_and_apart_from_the_bytes() -> None:
    data = bytearray(wire.submission_to_bytes(WHOLE))
    read = wire.submission_from_bytes(bytes(data), making.FRAME)
    tensor = read.shared[Level.SWARM]["layers.0.q_proj"].a
    assert tensor.data_ptr() % 64 == 0 and tensor.is_contiguous()


def test_snapshot_comes_back_to_the_last_bit() -> None:
    snapshot = messages.Snapshot(7, WHOLE.shared)
    read = wire.snapshot_from_bytes(wire.snapshot_to_bytes(snapshot), making.FRAME)
    assert read.version == 7 and list(read.layers) == list(snapshot.layers)
    assert all(same(read.layers[level], snapshot.layers[level]) for level in read.layers)


def changed_factor(**sides: torch.Tensor) -> messages.Submission:
    swarm = dict(WHOLE.shared[Level.SWARM])
    swarm["layers.0.v_proj"] = dataclasses.replace(swarm["layers.0.v_proj"], **sides)
    return dataclasses.replace(WHOLE, shared=dict(WHOLE.shared) | {Level.SWARM: swarm})


def without_a_module() -> messages.Submission:
    swarm = dict(WHOLE.shared[Level.SWARM])
    del swarm["layers.1.q_proj"]
    return dataclasses.replace(WHOLE, shared={Level.SWARM: swarm})


def with_a_strange_module() -> messages.Submission:
    swarm = dict(WHOLE.shared[Level.SWARM]) | {
        "lm_head": WHOLE.shared[Level.SWARM]["layers.0.q_proj"]
    }
    return dataclasses.replace(WHOLE, shared={Level.SWARM: swarm})


def with_circuit(**changed: object) -> messages.Submission:
    return dataclasses.replace(WHOLE, circuits=(making.circuit(**changed),))  # type: ignore[arg-type]


def one_off(value: float) -> torch.Tensor:
    tensor = torch.zeros(12, 5)
    tensor[3, 1] = value
    return tensor


PLACE = "submission of 'ada': shared/swarm: layers.0.v_proj"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: changed_factor(a=torch.zeros(12, 5, dtype=torch.float16)),
            f"{PLACE}.A: its dtype is torch.float16",
        ),
        (
            lambda: changed_factor(a=torch.zeros(5, 12)),
            f"{PLACE}.A: its shape is (5, 12), it must be (12, 5)",
        ),
        (lambda: changed_factor(b=torch.zeros(5)), f"{PLACE}.B: its shape is (5,)"),
        (lambda: changed_factor(a=one_off(math.nan)), f"{PLACE}.A: its largest value is nan"),
        (lambda: changed_factor(a=one_off(-math.inf)), f"{PLACE}.A: its largest value is inf"),
        (lambda: changed_factor(a=one_off(1e30)), "at most 1e+06"),
        (without_a_module, "'layers.1.q_proj.A' is missing (2 are)"),
        (with_a_strange_module, "'lm_head.A' is no module of this hierarchy"),
        (
            lambda: dataclasses.replace(WHOLE, shared={"heaven": WHOLE.shared[Level.SWARM]}),
            "'heaven' is no level",
        ),
        (
            lambda: dataclasses.replace(WHOLE, shared={Level.AGENT: WHOLE.private[Level.AGENT]}),
            "'shared' is no section of agent",
        ),
        (
            lambda: dataclasses.replace(
                WHOLE, private={Level.AGENT: making.layer(7, torch.Generator())}
            ),
            "its rank is 7, it must be 1 to 6",
        ),
        (lambda: dataclasses.replace(WHOLE, agent=""), "its agent must be 1 to 200"),
        (
            lambda: dataclasses.replace(WHOLE, sequence=0),
            "its sequence must be a whole number from 1",
        ),
        (
            lambda: dataclasses.replace(WHOLE, version=-1),
            "its version must be a whole number from 0",
        ),
        (lambda: dataclasses.replace(WHOLE, examples=True), "its examples must be a whole number"),
        (lambda: with_circuit(agent="eve"), "is of 'eve'"),
        (
            lambda: with_circuit(channels={"layers.0.q_proj": (0, 3)}),
            "must be different numbers from 0 to 2",
        ),
        (lambda: with_circuit(channels={"layers.0.q_proj": (1, 1)}), "must be different numbers"),
        (lambda: with_circuit(channels={"nowhere": (1,)}), "'nowhere' is no module"),
        (
            lambda: with_circuit(channels={"layers.0.q_proj": (0, 1)}),
            "pieces of modules that it has no channels of",
        ),
        (lambda: with_circuit(channels={}), "has no channels"),
        (lambda: with_circuit(level=Level.SWARM), "lies in swarm; send the agent layer's"),
        (lambda: with_circuit(autocorrelation=1.5), "its autocorrelation must be a number, 0 to 1"),
        (lambda: with_circuit(critical=1), "critical must be true or false"),
        (lambda: with_circuit(top=Level.CONTEXT), "its top context is below agent"),
        (lambda: dataclasses.replace(WHOLE, circuits=(making.circuit(),) * 2), "the same id"),
        (
            lambda: dataclasses.replace(WHOLE, circuits=(making.circuit(),) * 65),
            "a list of at most 64",
        ),
    ],
)
def test_submission_is_refused_when_a_part_is_wrong(
    make: Callable[[], messages.Submission], told: str
) -> None:
    data = wire.submission_to_bytes(make())
    with pytest.raises(errors.InvalidInputError) as caught:
        wire.submission_from_bytes(data, making.FRAME)
    assert told in str(caught.value)


def test_submission_is_not_written_when_a_number_is_not_finite() -> None:
    with pytest.raises(errors.InvalidInputError, match="not JSON compliant"):
        wire.submission_to_bytes(with_circuit(autocorrelation=math.nan))


def raw(values: bytes, dtype: str = "uint8") -> bytes:
    data = pa.py_buffer(values)
    return snapshots.to_bytes([snapshots.Tensor("meta", "values", dtype, (len(values),), data)])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "not a readable Arrow file"),
        (b"ARROW1" + bytes(100) + b"ARROW1", "not a readable Arrow file"),
        (raw(b"no json"), "its values are no JSON"),
        (raw(b'{"kind": NaN}'), "NaN is not a finite number"),
        (raw(b"[" * 100_000), "its values are no JSON"),
        (raw(b"9" * 10_000), "its values are no JSON"),
        (raw(b"[]"), "one JSON object"),
        (raw(b'{"kind": "snapshot"}'), "submission: this is none, but 'snapshot'"),
        (raw(b'{"kind": "submission"}'), "its agent must be"),
        (raw(b'{"kind": "submission", "agent": "ada", "circuits": 3}'), "must be a list"),
        (raw(b'{"kind": "submission", "agent": "ada", "circuits": [{}]}'), "must have the fields"),
        (packing.pack({}, {}).replace(b"meta", b"beta"), "its values are missing"),
    ],
)
def test_bytes_are_refused_when_they_are_no_submission(data: bytes, told: str) -> None:
    with pytest.raises(errors.InvalidInputError) as caught:
        wire.submission_from_bytes(data, making.FRAME)
    assert told in str(caught.value)


def test_snapshot_is_refused_when_a_layer_is_missing() -> None:
    part = messages.Snapshot(1, {Level.SWARM: WHOLE.shared[Level.SWARM]})
    with pytest.raises(errors.InvalidInputError, match=r"has the layers \['swarm'\]"):
        wire.snapshot_from_bytes(wire.snapshot_to_bytes(part), making.FRAME)


def test_nothing_is_read_when_the_bytes_are_more_than_any_right_submission_has() -> None:
    with pytest.raises(errors.CapacityError, match="at most"):
        wire.submission_from_bytes(bytes(making.FRAME.most_bytes + 1), making.FRAME)


def test_the_largest_right_submission_is_within_the_limit() -> None:
    path = {name: tuple(range(3)) for name in making.SHAPES}
    draw = torch.Generator().manual_seed(0)
    circuits = tuple(
        making.circuit(f"ada:{at}", channels=path, pieces=making.layer(3, draw)) for at in range(64)
    )
    data = wire.submission_to_bytes(making.submission(circuits=circuits))
    assert wire.submission_from_bytes(data, making.FRAME).circuits[63].id == "ada:63"


@pytest.mark.parametrize("claimed", [10 * 2**30, -1, 2**62])
def test_claims_of_sizes_are_refused_before_memory_is_taken(claimed: int) -> None:
    data = bytearray(wire.submission_to_bytes(WHOLE))
    shape = struct.pack("<q", 12)
    at = data.index(shape)
    tried = 0
    while at >= 0:
        wrong = bytearray(data)
        wrong[at : at + 8] = struct.pack("<q", claimed)
        try:
            wire.submission_from_bytes(bytes(wrong), making.FRAME)
        except errors.InvalidInputError:
            tried += 1
        at = data.find(shape, at + 1)
    assert tried > 0


def test_every_damage_is_a_typed_error_or_a_right_submission() -> None:
    data: Any = wire.submission_to_bytes(making.submission())
    draw = torch.Generator().manual_seed(0)
    for _ in range(300):
        wrong = bytearray(data)
        for _ in range(4):
            at = int(torch.randint(len(wrong), (), generator=draw))
            wrong[at] ^= 1 << int(torch.randint(8, (), generator=draw))
        try:
            read = wire.submission_from_bytes(bytes(wrong), making.FRAME)
        except errors.SkillmeshError:
            continue
        assert all(same(part, part) for part in read.shared.values())
