"""Two thousand damaged files: a card or a typed error, soon, and without eating memory."""

from __future__ import annotations

import pathlib
import random
import resource

import pyarrow as pa
import pytest

from shared import errors
from shared.cards import format as formats
from tests import tiny_model

CASES = 2_000
MOST_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def good() -> bytes:
    card = tiny_model.card_for(tiny_model.tiny_base(0))
    return formats.LoRAFormat.to_bytes(card)


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


def test_damaged_file_gives_a_card_or_a_typed_error(good: bytes, tmp_path: pathlib.Path):
    rng = random.Random(7)
    path = tmp_path / "card.lora.arrow"
    refused, most = 0, 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(CASES):
        path.write_bytes(_damaged(good, rng))
        before = pa.total_allocated_bytes()
        try:
            card = formats.LoRAFormat.load(path)
            assert card.modules
        except errors.SkillmeshError:
            refused += 1
        most = max(most, pa.total_allocated_bytes() - before)
    assert refused > CASES // 3
    assert most < MOST_BYTES
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown_kib * 1024 < MOST_BYTES


def test_no_card_comes_of_a_damaged_file_when_its_digest_is_known(
    good: bytes, tmp_path: pathlib.Path
):
    rng = random.Random(8)
    path = tmp_path / "card.lora.arrow"
    path.write_bytes(good)
    digest = formats.file_digest(path)
    for _ in range(100):
        damaged = _damaged(good, rng)
        if damaged == good:
            continue
        path.write_bytes(damaged)
        with pytest.raises(errors.SkillmeshError):
            formats.LoRAFormat.load(path, digest)
