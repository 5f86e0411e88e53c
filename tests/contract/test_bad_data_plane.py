"""A client of a data plane that sends nonsense: a typed error, and no file."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pytest

from shared import errors
from shared.flight import client as flight_client
from tests.contract import raw_flight

FILE = b"weights" * 1000
DIGEST = hashlib.sha256(FILE).hexdigest()


SCHEMA = raw_flight.message(flight_client.RAW_SCHEMA)
TWO = pa.record_batch([pa.array([FILE] * 2, pa.large_binary())], schema=flight_client.RAW_SCHEMA)
NUMBERS = pa.record_batch({"chunk": [1]})


def chunks(offsets: tuple[int, int]) -> list[raw_flight.Message]:
    return [SCHEMA, raw_flight.chunk(FILE, offsets)]


@pytest.fixture(scope="module")
def plane() -> Iterator[raw_flight.DataPlane]:
    served = raw_flight.DataPlane()
    yield served
    served.stop()


@pytest.mark.parametrize(
    ("messages", "error", "reason"),
    [
        (chunks((0, 10**12)), errors.InvalidInputError, "malformed batch"),
        (chunks((-64, 64)), errors.InvalidInputError, "malformed batch"),
        (chunks((64, 0)), errors.InvalidInputError, "malformed batch"),
        ([SCHEMA, raw_flight.message(TWO)], errors.InvalidInputError, "one chunk"),
        (
            [raw_flight.message(NUMBERS.schema), raw_flight.message(NUMBERS)],
            errors.InvalidInputError,
            "something else",
        ),
        ([SCHEMA, raw_flight.chunk(FILE[:-1])], errors.IntegrityError, "fetch it again"),
        (
            [SCHEMA, raw_flight.chunk(FILE), raw_flight.chunk(b"x")],
            errors.IntegrityError,
            "fetch it again",
        ),
    ],
    ids=["too-far", "before", "backwards", "two-chunks", "other-columns", "short", "long"],
)
def test_download_fails_typed_when_the_data_plane_sends_nonsense(
    plane: raw_flight.DataPlane,
    tmp_path: pathlib.Path,
    messages: list[raw_flight.Message],
    error: type[errors.SkillmeshError],
    reason: str,
) -> None:
    plane.messages = messages
    client = flight_client.LoRAFlightClient(plane.address)
    with pytest.raises(error, match=reason):
        client.get(DIGEST)
    with pytest.raises(error, match=reason):
        client.fetch_skill(DIGEST, tmp_path / "card.lora.arrow")
    client.close()
    assert list(tmp_path.iterdir()) == []


def test_download_arrives_when_it_comes_in_any_number_of_chunks(
    plane: raw_flight.DataPlane,
) -> None:
    plane.messages = [SCHEMA, *map(raw_flight.chunk, (FILE[:10], b"", FILE[10:]))]
    client = flight_client.LoRAFlightClient(plane.address)
    assert client.get(DIGEST) == FILE
    client.close()
