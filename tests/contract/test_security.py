"""Who may reach a card store: tokens, tenants and TLS, on real processes over loopback."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared import errors
from shared.cards import format as formats
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc, maintenance_pb2, maintenance_pb2_grpc, types_pb2
from shared.rpc import client as rpc_client
from shared.security import callers, certs
from shared.security import protection as protections
from tests import fakes
from tests.contract import card_store_processes

TENANTS = {"north": ["north"], "south": ["south"], "boss-of-south": ["south"]}


UPKEEP = maintenance_pb2_grpc.StoreMaintenanceStub


class House:
    """A store with TLS and tokens, and whatever a client needs to reach it."""

    def __init__(self, root: pathlib.Path, client_certificates: bool = False) -> None:
        self.certs = root / "certs"
        self.tokens = certs.make(self.certs, [])
        path = self.certs / "tokens.json"
        entries = json.loads(path.read_text())
        for name, tenants in TENANTS.items():
            self.tokens[name] = f"token-of-{name}"
            found = callers.hash_of(self.tokens[name])
            role = "operator" if name == "boss-of-south" else "node"
            entries.append({"name": name, "sha256": found, "role": role, "tenants": tenants})
        path.write_text(json.dumps(entries))
        self.store = card_store_processes.Store(
            root / "store",
            security={
                "require_signatures": False,
                "tls": {
                    "certificate": str(self.certs / "service.pem"),
                    "key": str(self.certs / "service.key"),
                    "authority": str(self.certs / "authority.pem"),
                    "client_certificates": client_certificates,
                },
                "tokens": str(path),
            },
        )

    def protection(self, who: str = "", authority: bytes = b"") -> protections.Protection:
        return protections.Protection(
            authority=authority or (self.certs / "authority.pem").read_bytes(),
            token=self.tokens.get(who, who),
        )

    async def call(
        self,
        method: str,
        request: object,
        who: str = "",
        authority: bytes = b"",
        kind: Any = cards_pb2_grpc.CardStoreStub,
    ) -> Any:
        address = f"localhost:{self.store.control.port}"
        protection = self.protection(who, authority)
        async with rpc_client.channel(address, protection=protection) as channel:
            return await rpc_client.call(getattr(kind(channel), method), request, 10)

    def flight(self, who: str) -> flight_client.LoRAFlightClient:
        address = f"localhost:{self.store.data.port}"
        return flight_client.LoRAFlightClient(address, self.protection(who))

    async def publish(self, name: str, tenants: tuple[str, ...] = ()) -> str:
        client = self.flight("trainer")
        digest = client.put("card", formats.LoRAFormat.to_bytes(fakes.tiny_card(name)))
        client.close()
        ticket = types_pb2.Ticket(kind="card", digest=digest)
        request = cards_pb2.CommitRequest(idempotency_key=digest, ticket=ticket, tenants=tenants)
        await self.call("Commit", request, "trainer")
        return digest


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    opened = House(tmp_path_factory.mktemp("secured"))
    yield opened
    opened.store.stop()


@pytest.mark.parametrize("who", ["", "not-a-token"])
async def test_call_is_refused_when_nobody_is_known_by_its_token(house: House, who: str) -> None:
    with pytest.raises(errors.UnauthenticatedError, match="token"):
        await house.call("ListCards", cards_pb2.ListCardsRequest(), who)
    client = house.flight(who)
    with pytest.raises(errors.UnauthenticatedError, match="token"):
        client.list_remote_skills()
    client.close()


async def test_role_is_refused_when_it_may_not_do_that(house: House) -> None:
    alias = cards_pb2.SetAliasRequest(name="x", alias="production", digest="0" * 64)
    with pytest.raises(errors.ForbiddenError, match="operator"):
        await house.call("SetAlias", alias, "trainer")
    client, data = house.flight("node"), b"a file that a node must not put"
    with pytest.raises(errors.ForbiddenError, match="trainer"):
        client.put("card", data)
    client.close()
    assert hashlib.sha256(data).hexdigest() not in house.store.staged()


async def test_card_arrives_as_it_was_sent_when_the_line_is_encrypted(house: House) -> None:
    digest = await house.publish("over-tls")
    client = house.flight("node")
    assert hashlib.sha256(client.get(digest)).hexdigest() == digest
    client.close()


async def test_anothers_card_does_not_exist_when_a_tenant_looks_for_it(house: House) -> None:
    digest = await house.publish("of-the-north", ("north",))
    seen = {}
    for who in TENANTS:
        listed = await house.call("ListCards", cards_pb2.ListCardsRequest(), who)
        client = house.flight(who)
        flights = {skill["name"] for skill in client.list_remote_skills()}
        client.close()
        seen[who] = ({card.name for card in listed.cards}, flights)
    assert all("of-the-north" in names for names in seen["north"])
    assert not any("of-the-north" in names for names in (*seen["south"], *seen["boss-of-south"]))

    request = cards_pb2.GetCardRequest(reference=digest)
    assert (await house.call("GetCard", request, "north")).digest == digest
    with pytest.raises(errors.NotFoundError):
        await house.call("GetCard", request, "south")
    theirs, others = house.flight("north"), house.flight("south")
    assert hashlib.sha256(theirs.get(digest)).hexdigest() == digest
    # In the very words that are said of what is not there at all.
    for missing in (digest, "0" * 64):
        with pytest.raises(errors.NotFoundError, match=f"nothing is committed .*{missing}"):
            others.get(missing)
        with pytest.raises(errors.NotFoundError, match=f"knows no card .*{missing}"):
            await house.call("GetCard", cards_pb2.GetCardRequest(reference=missing), "south")
    theirs.close()
    others.close()


async def test_another_tenant_leaves_no_trace_in_aliases_nodes_and_upkeep(house: House) -> None:
    theirs = await house.publish("secret-of-the-north", ("north",))
    shared = await house.publish("known-to-all")
    for name in ("secret-of-the-north", "never-there"):
        request = cards_pb2.ListAliasMovesRequest(name=name, alias="latest")
        assert not (await house.call("ListAliasMoves", request, "south")).moves
    assert (await house.call("ListAliasMoves", request, "operator")) is not None
    request = cards_pb2.ListAliasMovesRequest(name="secret-of-the-north", alias="latest")
    assert [m.digest for m in (await house.call("ListAliasMoves", request, "north")).moves] == [
        theirs
    ]
    report = cards_pb2.ReportResidencyRequest(node_id="node-1", digests=[theirs, shared, "odd"])
    await house.call("ReportResidency", report, "node")

    async def held(who: str, digest: str = "") -> list[list[str]]:
        request = cards_pb2.ListResidencyRequest(digest=digest)
        found = await house.call("ListResidency", request, who)
        return [list(node.digests) for node in found.nodes]

    assert await held("operator") == [[theirs, shared, "odd"]]
    assert await held("operator", theirs) == [[theirs, shared, "odd"]]
    assert await held("boss-of-south") == [[shared]]
    assert await held("boss-of-south", theirs) == []
    for method, wanted in (
        ("BringCard", cards_pb2.BringCardRequest(digest=theirs)),
        ("DeleteCard", cards_pb2.DeleteCardRequest(digest=theirs)),
        ("Revoke", cards_pb2.RevokeRequest(digest=theirs)),
    ):
        with pytest.raises(errors.NotFoundError):
            await house.call(method, wanted, "boss-of-south")
    # What everybody uses, and what concerns everybody, is not one tenant's to change.
    for method, wanted in (
        ("DeleteCard", cards_pb2.DeleteCardRequest(digest=shared)),
        ("Revoke", cards_pb2.RevokeRequest(key_id="0" * 32)),
    ):
        with pytest.raises(errors.ForbiddenError, match="south"):
            await house.call(method, wanted, "boss-of-south")
    for method, wanted in (
        ("CompactLog", maintenance_pb2.CompactLogRequest(keep_lines=1000)),
        ("ApplyRetention", maintenance_pb2.ApplyRetentionRequest(dry_run=True)),
        ("CollectGarbage", maintenance_pb2.CollectGarbageRequest(dry_run=True)),
    ):
        with pytest.raises(errors.ForbiddenError, match="every tenant"):
            await house.call(method, wanted, "boss-of-south", kind=UPKEEP)
        await house.call(method, wanted, "operator", kind=UPKEEP)


async def test_key_is_not_revoked_when_its_id_is_misspelt(house: House) -> None:
    for wrong in ("", "0" * 31, "A" * 32, "0" * 64):
        with pytest.raises(errors.InvalidInputError, match="key_id"):
            await house.call("Revoke", cards_pb2.RevokeRequest(key_id=wrong), "operator")


CARD = cards_pb2.SetAliasRequest(name="nobody", alias="production", digest="0" * 64)
EVERYBODY = "node trainer operator peer user teacher"
MAY = {
    "ListCards": (cards_pb2.ListCardsRequest(), EVERYBODY),
    "GetStoreStatus": (cards_pb2.GetStoreStatusRequest(), EVERYBODY),
    "GetCard": (cards_pb2.GetCardRequest(reference="nobody"), EVERYBODY),
    "BringCard": (cards_pb2.BringCardRequest(digest="0" * 64), "node trainer operator peer"),
    "ReportResidency": (
        cards_pb2.ReportResidencyRequest(node_id="matrix"), "node trainer operator",
    ),
    "Commit": (
        cards_pb2.CommitRequest(ticket=types_pb2.Ticket(kind="card", digest="0" * 64)),
        "trainer operator",
    ),
    "SetAlias": (CARD, "operator"),
    "RollBackAlias": (cards_pb2.RollBackAliasRequest(name="nobody", alias="latest"), "operator"),
    "DeleteCard": (cards_pb2.DeleteCardRequest(digest="0" * 64), "operator"),
    "Revoke": (cards_pb2.RevokeRequest(digest="0" * 64), "operator"),
    "ListResidency": (cards_pb2.ListResidencyRequest(), "node trainer operator user teacher"),
    "ListPeers": (cards_pb2.ListPeersRequest(), "operator"),
}  # fmt: skip


@pytest.mark.parametrize("method", MAY)
async def test_call_is_let_in_when_the_role_may_and_refused_when_not(
    house: House, method: str
) -> None:
    wanted, roles = MAY[method]
    for role in EVERYBODY.split():
        refused = False
        try:
            await house.call(method, wanted, role)
        except errors.ForbiddenError:
            refused = True
        except (errors.NotFoundError, errors.PreconditionError):
            pass  # It was let in, and there is no such card.
        assert refused is (role not in roles.split()), role


@pytest.mark.parametrize("role", ["node", "trainer", "operator", "peer"])
def test_upload_is_let_in_when_the_role_may_make_cards(house: House, role: str) -> None:
    data = formats.LoRAFormat.to_bytes(fakes.tiny_card(f"by-{role}"))
    client = house.flight(role)
    if role in ("trainer", "operator"):
        assert client.put("card", data) in house.store.staged()
    else:
        with pytest.raises(errors.ForbiddenError, match="operator or trainer"):
            client.put("card", data)
    assert client.list_remote_skills() is not None
    client.close()


async def test_watch_passes_over_anothers_card_when_a_tenant_watches(house: House) -> None:
    await house.publish("hidden-from-south", ("north",))
    shown = await house.publish("for-everybody")
    address = f"localhost:{house.store.control.port}"
    heard = set()
    async with rpc_client.channel(address, protection=house.protection("south")) as channel:
        call = cards_pb2_grpc.CardStoreStub(channel).Watch(cards_pb2.WatchRequest(), timeout=30)
        async for change in call:
            heard.add(change.card.name)
            if change.card.digest == shown:
                break
    assert "for-everybody" in heard and "hidden-from-south" not in heard


async def test_server_is_not_believed_when_another_authority_signed_it(
    house: House, tmp_path: pathlib.Path
) -> None:
    certs.make(tmp_path, [])
    other = (tmp_path / "authority.pem").read_bytes()
    with pytest.raises(errors.SkillmeshError):
        await house.call("ListCards", cards_pb2.ListCardsRequest(), "node", other)
    await house.call("ListCards", cards_pb2.ListCardsRequest(), "node")


async def test_token_is_worth_nothing_when_it_was_withdrawn(
    house: House, request: pytest.FixtureRequest
) -> None:
    path = house.certs / "tokens.json"
    before = path.read_text()
    request.addfinalizer(lambda: path.write_text(before))
    await house.call("ListCards", cards_pb2.ListCardsRequest(), "peer")
    path.write_text(json.dumps([e for e in json.loads(before) if e["name"] != "peer"]))
    with pytest.raises(errors.UnauthenticatedError):
        await house.call("ListCards", cards_pb2.ListCardsRequest(), "peer")


def without_a_key(folder: pathlib.Path) -> None:
    (folder / "service.key").write_text("no key")


def with_anothers_key(folder: pathlib.Path) -> None:
    certs.make(folder / "other", [])
    (folder / "service.key").write_bytes((folder / "other" / "service.key").read_bytes())


@pytest.mark.parametrize("spoil", [without_a_key, with_anothers_key])
def test_process_does_not_start_when_its_key_is_no_good(
    tmp_path: pathlib.Path, spoil: Callable[[pathlib.Path], None]
) -> None:
    folder = tmp_path / "certs"
    certs.make(folder, [])
    spoil(folder)
    tls = {"certificate": str(folder / "service.pem"), "key": str(folder / "service.key")}
    path = card_store_processes.write_config(tmp_path / "store")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"security": {"tls": tls}}))
    process = card_store_processes.Process(card_store_processes.CONTROL, path)
    assert process.wait() == 2
    assert "security.tls.key" in "".join(process.log)


async def test_server_is_not_believed_when_its_certificate_has_expired(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "certs"
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certs.make(folder, [], now=long_ago)
    tls = {"certificate": str(folder / "service.pem"), "key": str(folder / "service.key")}
    path = card_store_processes.write_config(tmp_path / "store")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"security": {"tls": tls}}))
    process = card_store_processes.Process(card_store_processes.CONTROL, path).until_listening()
    try:
        believed = protections.Protection(authority=(folder / "authority.pem").read_bytes())
        address = f"localhost:{process.port}"
        async with rpc_client.channel(address, protection=believed) as channel:
            stub = cards_pb2_grpc.CardStoreStub(channel)
            with pytest.raises(errors.SkillmeshError):
                await rpc_client.call(stub.ListCards, cards_pb2.ListCardsRequest(), 5)
    finally:
        process.end()


def test_certificates_stay_when_they_are_made_again_without_force(tmp_path: pathlib.Path) -> None:
    first = certs.make(tmp_path, [])
    authority = (tmp_path / "authority.pem").read_bytes()
    with pytest.raises(errors.AlreadyExistsError, match="force"):
        certs.make(tmp_path, [])
    assert (tmp_path / "authority.pem").read_bytes() == authority
    assert certs.make(tmp_path, [], force=True) != first
    assert (tmp_path / "service.key").stat().st_mode & 0o777 == 0o600
