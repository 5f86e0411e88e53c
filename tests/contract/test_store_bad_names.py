"""Names made to lead somewhere else, or to be too much: typed, short errors of real processes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow.flight
import pytest

from shared import errors
from shared.pb import cards_pb2, types_pb2
from shared.rpc import client as rpc_client
from tests.contract.card_store_processes import Store, announce, card_bytes, raw_batch, send

GOOD = card_bytes("good")
DIGEST = hashlib.sha256(GOOD).hexdigest()
NAMES = {
    "up": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "nul": "good\0.db",
    "digest-and-nul": DIGEST[:63] + "\0",
    "digest-and-newline": DIGEST + "\n",
    "upper-case": DIGEST.upper(),
    "percent": "%2e%2e%2f%2e%2e%2fcatalogue.db",
    "backslash": "..\\..\\x",
    "sql": "x' OR '1'='1",
    "wild": "%",
    "pipe": "a|b",
    "surrogate-like": "\ufffe\U0010ffff",
    "dots": "..",
    "long": "a" * 100_000,
    "very-long": "/../" * 300_000,
}
MOST_MESSAGE = 2100
"""Characters: a message that quotes a long name whole would not fit into gRPC's trailers."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store(tmp_path_factory.mktemp("outside") / "state")
    asyncio.run(opened.publish(GOOD))
    yield opened
    opened.stop()


def files(root: pathlib.Path) -> set[str]:
    """What lies in and around the store's folder; the database's own files come and go."""
    paths = [path for path in root.parent.rglob("*") if "catalogue.db" not in path.name]
    return {str(path) for path in paths}


@pytest.fixture
def unharmed(store: Store) -> Iterator[None]:
    """Whatever a test asks for, no file comes or goes, and the store knows what it knew."""
    before, revision = files(store.root), asyncio.run(revision_of(store))
    yield
    assert files(store.root) == before
    assert asyncio.run(revision_of(store)) == revision
    assert store.get(DIGEST) == GOOD
    assert asyncio.run(store.listed()) == [DIGEST]
    assert not [line for line in store.control.log if "call failed" in line]


async def revision_of(store: Store) -> int:
    async with store.stub() as stub:
        request = cards_pb2.GetStoreStatusRequest()
        return int((await rpc_client.call(stub.GetStoreStatus, request)).revision)


pytestmark = pytest.mark.usefixtures("unharmed")

REQUESTS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "commit-digest": (
        "Commit",
        lambda x: cards_pb2.CommitRequest(ticket=types_pb2.Ticket(kind="card", digest=x)),
    ),
    "commit-kind": (
        "Commit",
        lambda x: cards_pb2.CommitRequest(ticket=types_pb2.Ticket(kind=x, digest=DIGEST)),
    ),
    "commit-tenant": (
        "Commit",
        lambda x: cards_pb2.CommitRequest(
            ticket=types_pb2.Ticket(kind="card", digest="0" * 64), tenants=["acme", x]
        ),
    ),
    "get": ("GetCard", lambda x: cards_pb2.GetCardRequest(reference=x)),
    "get-selector": ("GetCard", lambda x: cards_pb2.GetCardRequest(reference=f"good@{x}")),
    "page-token": ("ListCards", lambda x: cards_pb2.ListCardsRequest(page_size=1, page_token=x)),
    "alias": ("SetAlias", lambda x: cards_pb2.SetAliasRequest(name="good", alias=x, digest=DIGEST)),
    "alias-name": (
        "SetAlias",
        lambda x: cards_pb2.SetAliasRequest(name=x, alias="production", digest=DIGEST),
    ),
    "alias-digest": (
        "SetAlias",
        lambda x: cards_pb2.SetAliasRequest(name="good", alias="production", digest=x),
    ),
    "roll-back": ("RollBackAlias", lambda x: cards_pb2.RollBackAliasRequest(name="good", alias=x)),
    "roll-back-name": (
        "RollBackAlias",
        lambda x: cards_pb2.RollBackAliasRequest(name=x, alias="latest"),
    ),
    "delete": ("DeleteCard", lambda x: cards_pb2.DeleteCardRequest(digest=x)),
    "revoke": ("Revoke", lambda x: cards_pb2.RevokeRequest(digest=x)),
    "bring": ("BringCard", lambda x: cards_pb2.BringCardRequest(digest=x)),
}


@pytest.mark.parametrize("request_", REQUESTS)
async def test_request_is_refused_typed_and_briefly_when_a_name_in_it_is_bad(
    store: Store, request_: str
) -> None:
    method, make = REQUESTS[request_]
    async with store.stub() as stub:
        for label, name in NAMES.items():
            with pytest.raises(errors.SkillmeshError) as refused:
                await rpc_client.call(getattr(stub, method), make(name))
            expected = (errors.InvalidInputError, errors.NotFoundError)
            assert isinstance(refused.value, expected), (label, str(refused.value)[:200])
            assert len(str(refused.value)) < MOST_MESSAGE, label


async def test_nothing_is_found_when_a_filter_is_bad(store: Store) -> None:
    async with store.stub() as stub:
        for label, name in NAMES.items():
            for field in ("name", "domain", "base_fingerprint", "text"):
                # Words that only one of them has: `text` looks for what it finds in the noise.
                request = cards_pb2.ListCardsRequest(all_versions=True)
                setattr(request, field, f"{name} nonsense" if field == "text" else name)
                found = await rpc_client.call(stub.ListCards, request)
                assert not found.cards, (label, field)
            history = cards_pb2.ListAliasMovesRequest(name=name, alias=name)
            assert not (await rpc_client.call(stub.ListAliasMoves, history)).moves


async def test_alias_stays_when_the_idempotency_key_is_too_long(store: Store) -> None:
    key = "k" * 256
    set_, back = cards_pb2.SetAliasRequest, cards_pb2.RollBackAliasRequest
    async with store.stub() as stub:
        for method, request in (
            (stub.SetAlias, set_(name="good", alias="x", digest=DIGEST, idempotency_key=key)),
            (stub.RollBackAlias, back(name="good", alias="latest", idempotency_key=key)),
        ):
            with pytest.raises(errors.InvalidInputError, match=r"idempotency key .* at most 255"):
                await rpc_client.call(method, request)


def token(*key: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


@pytest.mark.parametrize(
    "page_token",
    [
        token("good", 10**30, DIGEST),
        token("good", -(10**30), DIGEST),
        token("good", float("inf"), DIGEST),
        token("good", float("nan"), DIGEST),
        token("\ud800", 1, DIGEST),
        token("good", 1, "\ud800"),
        token("good", [1], DIGEST),
        token("good", 1),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
        base64.urlsafe_b64encode(b"1" * 100_000).decode(),
        base64.urlsafe_b64encode(b"\xff").decode(),
        "=",
        "é",
    ],
)
async def test_page_token_is_refused_when_no_store_gave_it(store: Store, page_token: str) -> None:
    async with store.stub() as stub:
        with pytest.raises(errors.InvalidInputError, match="page_token"):
            request = cards_pb2.ListCardsRequest(page_size=1, page_token=page_token)
            await rpc_client.call(stub.ListCards, request)


@pytest.mark.parametrize(
    "signature", ["x", "[" * 60_000, "a" * 3_000_000, '{"payload": "\\ud800"}', "\0"]
)
async def test_commit_is_refused_typed_when_the_signature_is_nonsense(
    store: Store, signature: str
) -> None:
    data = card_bytes("unsigned")
    digest = store.put(data)
    request = cards_pb2.CommitRequest(
        ticket=types_pb2.Ticket(kind="card", digest=digest), signature_json=signature
    )
    async with store.stub() as stub:
        with pytest.raises(errors.UntrustedError) as refused:
            await rpc_client.call(stub.Commit, request)
    assert len(str(refused.value)) < MOST_MESSAGE


async def test_report_is_refused_when_its_node_has_no_sensible_id(store: Store) -> None:
    async with store.stub() as stub:
        for name in ("", NAMES["long"]):
            with pytest.raises(errors.InvalidInputError, match="node_id"):
                request = cards_pb2.ReportResidencyRequest(node_id=name)
                await rpc_client.call(stub.ReportResidency, request)


def test_flight_call_is_refused_typed_and_briefly_when_a_name_in_it_is_bad(store: Store) -> None:
    descriptor = pyarrow.flight.FlightDescriptor
    ticket = pyarrow.flight.Ticket
    options = pyarrow.flight.FlightCallOptions(timeout=30)
    with pyarrow.flight.connect(f"grpc://{store.flight_address}") as client:
        for label, name in NAMES.items():
            calls: list[Callable[[], Any]] = [
                lambda name=name: client.get_flight_info(descriptor.for_path(name), options),
                lambda name=name: client.get_flight_info(
                    descriptor.for_path("good", name), options
                ),
                lambda name=name: client.get_flight_info(
                    descriptor.for_command(json.dumps({"digest": name})), options
                ),
                lambda name=name: client.get_flight_info(descriptor.for_command(name), options),
                lambda name=name: client.do_get(
                    ticket(json.dumps({"digest": name, "raw": True})), options
                ).read_all(),
                lambda name=name: client.do_get(ticket(name), options).read_all(),
                lambda name=name: send(client, announce(GOOD, digest=name), raw_batch(GOOD)),
                lambda name=name: send(client, announce(GOOD, kind=name), raw_batch(GOOD)),
                lambda name=name: send(client, descriptor.for_path(name), raw_batch(GOOD)),
            ]
            for number, call in enumerate(calls):
                with pytest.raises((pyarrow.ArrowInvalid, pyarrow.ArrowKeyError)) as refused:
                    call()
                text = str(refused.value).split(". Detail:")[0]
                assert len(text) < MOST_MESSAGE, (label, number)
            assert list(client.list_flights(name.encode(), options)) == []


def test_descriptor_is_refused_when_it_is_nested_too_deeply(store: Store) -> None:
    with (
        pyarrow.flight.connect(f"grpc://{store.flight_address}") as client,
        pytest.raises(pyarrow.ArrowInvalid, match="a descriptor must have"),
    ):
        client.get_flight_info(pyarrow.flight.FlightDescriptor.for_command(b"[" * 100_000))
