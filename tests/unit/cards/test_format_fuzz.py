"""Thousands of bad files: a card or a typed error, soon, and never more than 64 MB of memory."""

from __future__ import annotations

import pathlib
import random
import re
from collections.abc import Callable, Iterator

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest

from shared import errors
from shared.cards import format as formats
from tests import fakes, tiny_model
from tests.unit.cards import measured_loading

CASES = 2_000
MOST_BYTES = 64 * 1024 * 1024
MANIFEST = fakes.tiny_card().manifest.to_json()
FOUR_ZEROS = bytes(4)


@pytest.fixture(scope="module")
def loader() -> Iterator[measured_loading.Loader]:
    made = measured_loading.Loader()
    yield made
    made.close()


@pytest.fixture(scope="module")
def good() -> list[bytes]:
    made = (tiny_model.card_for(tiny_model.tiny_base(0)), fakes.tiny_card(modules=40))
    return [formats.LoRAFormat.to_bytes(card) for card in made]


@pytest.fixture(scope="module")
def path(
    tmp_path_factory: pytest.TempPathFactory, loader: measured_loading.Loader, good: list[bytes]
) -> pathlib.Path:
    """Where the files are written; the process has loaded a good one before it is measured."""
    path = tmp_path_factory.mktemp("cards") / "card.lora.arrow"
    for data in good:
        path.write_bytes(data)
        assert loader.load(path).outcome == "card"
    return path


def _harmless(loading: measured_loading.Loading) -> bool:
    """Whether a file was refused as it should be; False where it gave a card."""
    assert loading.peak_bytes < MOST_BYTES, loading
    assert loading.outcome in ("card", "CardFormatError"), loading
    return loading.outcome != "card"


def _damaged(data: bytes, rng: random.Random) -> bytes:
    """One of the ways in which files break, or are broken."""
    kind, at = rng.randrange(8), rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data + rng.randbytes(rng.randrange(1, 4096))
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randrange(1, 64)) + data[at:]
    if kind == 3:
        return data[:at] + data[at + rng.randrange(1, 512) :]
    if kind == 4:  # A length or an offset becomes huge or negative.
        at -= at % 4
        return data[:at] + rng.choice((b"\xff\xff\xff\x7f", b"\xff" * 4)) + data[at + 4 :]
    if kind == 5:
        other = rng.randrange(len(data))
        return data[:at] + data[other : other + 256] + data[at + 256 :]
    if kind == 6:
        return rng.randbytes(at)
    flipped = bytearray(data)
    for _ in range(rng.randrange(1, 20)):
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def test_damaged_file_gives_a_card_or_a_typed_error(good, path, loader):
    rng, refused = random.Random(7), 0
    for _ in range(CASES):
        path.write_bytes(_damaged(rng.choice(good), rng))
        refused += _harmless(loader.load(path))
    assert refused > CASES // 3


def test_no_card_comes_of_a_damaged_file_when_its_digest_is_known(good, path):
    rng = random.Random(8)
    path.write_bytes(good[0])
    digest = formats.file_digest(path)
    for _ in range(100):
        damaged = _damaged(good[0], rng)
        if damaged == good[0]:
            continue
        path.write_bytes(damaged)
        with pytest.raises(errors.SkillmeshError):
            formats.LoRAFormat.load(path, digest)


def _columns(names: list[str], weights: bytes = FOUR_ZEROS, features: int = 1) -> list[pa.Array]:
    count = len(names)
    return [
        pa.array(names, pa.utf8()),
        pa.array(np.ones(count, np.int32)),
        pa.array(np.full(count, features, np.int32)),
        pa.array(np.ones(count, np.int32)),
        pa.array(np.ones(count, np.float32)),
        pa.array(["float32"] * count, pa.utf8()),
        pa.array([weights] * count, pa.large_binary()),
        pa.array([FOUR_ZEROS] * count, pa.large_binary()),
    ]


def _file(
    columns: list[pa.Array], compression: str | None = None, manifest: str = MANIFEST
) -> bytes:
    schema = formats.SCHEMA.with_metadata({formats.METADATA_KEY: manifest})
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    return bytes(sink.getvalue())


def _bomb(compression: str) -> bytes:
    size = 200 * 1024 * 1024
    return _file(_columns(["a.q_proj"], bytes(size), size // 4), compression)


def _with_gate(rows: int) -> bytes:
    """Every row lacks five fields: pydantic would tell each of them."""
    gate = ",".join(["{}"] * rows)
    return _file(_columns(["a.q_proj"]), manifest=MANIFEST.replace('"gate":[]', f'"gate":[{gate}]'))


def _misaligned() -> bytes:
    """Weights that begin at an odd byte: numpy copies them to reckon with them."""
    size = 40 * 1024 * 1024
    data = _file(_columns(["a.q_proj"], bytes(size + 8), size // 4))
    batch = pa.ipc.open_file(source := pa.py_buffer(data)).get_batch(0)
    at = batch.column("lora_A").buffers()[1].address - source.address
    return data[:at] + np.array([1, size + 1], np.int64).tobytes() + data[at + 16 :]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: _bomb("zstd"), "compressed cards are refused"),
        (lambda: _bomb("lz4"), "compressed cards are refused"),
        (
            lambda: _file(_columns([f"{n}.q_proj" for n in range(200_000)])),
            "field module: .* 1 to 16384",
        ),
        (
            lambda: _file(_columns(["a" * 40_000_000 + ".q_proj"])),
            "field module: .* at most 8388608",
        ),
        (lambda: _file(_columns(["a.q_proj"]), manifest=MANIFEST + " " * 40_000_000), "manifest"),
        (lambda: _with_gate(1_000_000), "manifest: .* at most 65536"),
        (lambda: _with_gate(30_000), r"manifest field gate\.0"),
        (_misaligned, ""),
    ],
    ids=["zstd", "lz4", "rows", "name", "manifest", "values", "errors", "misaligned"],
)
def test_file_costs_little_memory_when_it_asks_for_much(
    make: Callable[[], bytes], named: str, path, loader
):
    path.write_bytes(make())
    loading = loader.load(path)
    assert _harmless(loading) == bool(named)
    assert re.search(named, loading.message), loading


OTHER_ARRAYS = st.sampled_from(
    [
        pa.array(["a.q_proj"]).dictionary_encode(),
        pa.array([["a.q_proj"] * 5]),
        pa.array([{"a": {"b": "c"}}]),
        pa.array([None], pa.null()),
        pa.array([2**40]),
        pa.array(["a.q_proj"], pa.large_utf8()),
        pa.array(["a.q_proj"], pa.string_view()),
        pa.array([b"abcd"], pa.binary(4)),
        pa.array([0], pa.timestamp("ns", "UTC")),
        pa.RunEndEncodedArray.from_arrays(pa.array([1], pa.int32()), pa.array([1.0])),
    ]
)
VALUES = st.sampled_from(["{}", "[]", "1", "1e308", "null", '"a"', '{"a":{"b":[]}}', "[[[[]]]]"])


@st.composite
def _manifests(draw: st.DrawFn) -> str:
    """A good manifest with a field of another value, or of many."""
    field = draw(st.sampled_from(["gate", "target_modules", "routing", "lineage", "name", "x"]))
    value, count = draw(VALUES), draw(st.sampled_from([1, 1_000, 30_000]))
    array = ",".join([value] * count)
    entries = ",".join(f'"{number}":{value}' for number in range(count))
    told = draw(
        st.sampled_from(
            [
                value,
                f"[{array}]",
                f'{{"examples":[{array}]}}',
                f'{{"centroid":[{array}]}}',
                f'{{"recipe":{{{entries}}}}}',
                f"{{{entries}}}",
            ]
        )
    )
    return f'{MANIFEST[:-1]},"{field}":{told}}}'


@st.composite
def _structures(draw: st.DrawFn) -> bytes:
    """An Arrow file much like a card's, written by Arrow itself."""
    rows = draw(st.sampled_from([1, 1, 1, 0, 2, 17_000]))
    names = [f"{n}.q_proj" for n in range(rows)]
    if rows:
        names[0] = draw(st.sampled_from(["a.q_proj", "", "é" * 512, "a" * 100_000]))
    fields, columns = list(formats.SCHEMA), _columns(names)
    at = draw(st.integers(0, len(fields) - 1))
    change = draw(st.sampled_from(["", "", "null", "other", "left out", "twice", "metadata"]))
    if change == "null":
        columns[at] = pa.nulls(rows, fields[at].type)
    elif change == "other" and rows == 1:
        columns[at] = draw(OTHER_ARRAYS)
        fields[at] = pa.field(fields[at].name, columns[at].type)
    elif change == "left out":
        del fields[at], columns[at]
    elif change == "twice":
        fields, columns = [*fields, fields[at]], [*columns, columns[at]]
    elif change == "metadata":
        fields[at] = fields[at].with_metadata({"a": "b" * draw(st.integers(0, 100_000))})
    told = {formats.METADATA_KEY: draw(st.one_of(st.just(MANIFEST), _manifests()))}
    told |= draw(st.dictionaries(st.binary(max_size=5), st.binary(max_size=50), max_size=1))
    batch = pa.record_batch(columns, schema=pa.schema(fields, told))
    options = pa.ipc.IpcWriteOptions(
        compression=draw(st.sampled_from([None, None, "lz4", "zstd"])),
        metadata_version=draw(st.sampled_from(list(pa.ipc.MetadataVersion)[-2:])),
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        for _ in range(draw(st.sampled_from([1, 1, 1, 0, 2]))):
            note = draw(st.sampled_from([None, None, {"a": "b"}]))
            writer.write_batch(batch, custom_metadata=note)
    return bytes(sink.getvalue())


@hypothesis.settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
@hypothesis.given(data=_structures())
def test_file_of_another_structure_gives_a_card_or_a_typed_error(data: bytes, path, loader):
    path.write_bytes(data)
    _harmless(loader.load(path))
