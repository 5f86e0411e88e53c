"""The plugin's side of Flight, against a store that may say anything."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
import stores
from skillmesh_vllm import errors, settings, store

DIGEST = hashlib.sha256(b"first second").hexdigest()
CARD = store.Card("skill", DIGEST, 12)
LISTED = {"name": "skill", "digest": DIGEST, "size_bytes": 12}


@pytest.fixture
def flight() -> Iterator[stores.FlightStore]:
    server = stores.FlightStore()
    yield server
    server.shutdown()


def client(flight: stores.FlightStore, token: str = "") -> store.CardStore:
    return store.CardStore(settings.Store(f"grpc://127.0.0.1:{flight.port}", token))


def test_card_and_bytes_arrive_when_the_store_has_them(flight: stores.FlightStore) -> None:
    flight.listed["skill"] = LISTED
    flight.sent = [b"first ", b"second"]
    found = client(flight).find("skill")
    assert found == CARD
    assert client(flight).fetch(found).to_pybytes() == b"first second"


def test_the_store_is_asked_for_the_card_alone_when_the_name_is_one_that_vllm_lists(
    flight: stores.FlightStore,
) -> None:
    flight.listed[CARD.identity] = LISTED
    assert client(flight).find(f"{CARD.identity}#12") == CARD


def test_the_token_is_shown_when_there_is_one(flight: stores.FlightStore) -> None:
    flight.listed["skill"] = LISTED
    client(flight, token="secret").find("skill")
    assert flight.seen.headers[-1]["authorization"] == ["Bearer secret"]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "other"},
        {"digest": "../../etc"},
        {"digest": "A" * 64},
        {"digest": "b" * 64},
        {"size_bytes": 0},
        {"size_bytes": store.LARGEST_CARD_BYTES + 1},
        {"size_bytes": "many"},
    ],
    ids=str,
)
def test_an_answer_is_refused_when_it_is_not_about_what_was_asked(
    flight: stores.FlightStore, changed: dict[str, Any]
) -> None:
    reference = f"skill@{DIGEST}"
    flight.listed[reference] = LISTED | changed
    with pytest.raises(errors.DamagedError, match="skill@"):
        client(flight).find(reference)


@pytest.mark.parametrize("sent", [[b"first ", b"other!"], [b"first"], [b"first ", b"second", b"x"]])
def test_bytes_are_refused_when_they_are_others_than_listed(
    flight: stores.FlightStore, sent: list[bytes]
) -> None:
    flight.sent = sent
    with pytest.raises(errors.DamagedError):
        client(flight).fetch(CARD)


def test_the_errors_differ_when_a_card_is_unknown_or_the_store_is_away(
    flight: stores.FlightStore,
) -> None:
    with pytest.raises(errors.NotFoundError, match="unknown"):
        client(flight).find("unknown")
    away = store.CardStore(settings.Store("grpc://127.0.0.1:1"))
    with pytest.raises(errors.UnavailableError, match=r"127\.0\.0\.1:1"):
        away.find("skill")
