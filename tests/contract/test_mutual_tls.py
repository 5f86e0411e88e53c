"""Mutual TLS on gRPC and Flight: who has no certificate of the authority does not get in."""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from shared import errors
from shared.flight import client as flight_client
from shared.pb import cards_pb2, cards_pb2_grpc
from shared.rpc import client as rpc_client
from shared.security import certs
from shared.security import protection as protections
from tests.contract import card_store_processes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Certificates: the house's, another authority's, and the house's of long ago."""
    root = tmp_path_factory.mktemp("mutual")
    certs.make(root / "house", [])
    certs.make(root / "other", [])
    make_expired(root / "house", root / "expired")
    return root


def make_expired(house: pathlib.Path, folder: pathlib.Path) -> None:
    """A certificate that the house's authority gave, for a day of 2020."""
    authority = x509.load_pem_x509_certificate((house / "authority.pem").read_bytes())
    signer = serialization.load_pem_private_key((house / "authority.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=authority.subject,
        subject_name=x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, "skillmesh")]),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begin,
        not_valid_after=begin + datetime.timedelta(days=1),
    )
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    pem = serialization.Encoding.PEM
    folder.mkdir()
    certificate = builder.sign(signer, hashes.SHA256())
    (folder / "service.pem").write_bytes(certificate.public_bytes(pem))
    plain = serialization.NoEncryption()
    key_pem = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / "service.key").write_bytes(key_pem)


@pytest.fixture(scope="module")
def store(folder: pathlib.Path) -> Iterator[card_store_processes.Store]:
    tls = {
        "certificate": str(folder / "house" / "service.pem"),
        "key": str(folder / "house" / "service.key"),
        "authority": str(folder / "house" / "authority.pem"),
        "client_certificates": True,
    }
    opened = card_store_processes.Store(folder / "store", security={"tls": tls})
    yield opened
    opened.stop()


async def ask_both(store: card_store_processes.Store, shown: protections.Protection) -> None:
    """One call on each plane; raises what the first of them raises that is refused."""
    address = f"localhost:{store.control.port}"
    refused: list[errors.SkillmeshError] = []
    async with rpc_client.channel(address, protection=shown) as channel:
        stub = cards_pb2_grpc.CardStoreStub(channel)
        try:
            await rpc_client.call(stub.ListCards, cards_pb2.ListCardsRequest(), 10)
        except errors.SkillmeshError as error:
            refused.append(error)
    client = flight_client.LoRAFlightClient(f"localhost:{store.data.port}", shown)
    try:
        client.list_remote_skills()
    except errors.SkillmeshError as error:
        refused.append(error)
    finally:
        client.close()
    assert len(refused) in (0, 2), "one plane lets in whom the other does not"
    if refused:
        raise refused[0]


@pytest.mark.parametrize("whose", ["nobody's", "other", "expired"])
async def test_client_is_refused_when_its_certificate_is_not_one_to_believe(
    store: card_store_processes.Store, folder: pathlib.Path, whose: str
) -> None:
    authority = (folder / "house" / "authority.pem").read_bytes()

    def shown(name: str) -> protections.Protection:
        if not (folder / name).exists():
            return protections.Protection(authority=authority)
        certificate, key = ((folder / name / f"service.{e}").read_bytes() for e in ("pem", "key"))
        return protections.Protection(certificate=certificate, key=key, authority=authority)

    await ask_both(store, shown("house"))
    with pytest.raises((errors.UnavailableError, errors.UnauthenticatedError)):
        await ask_both(store, shown(whose))
    await ask_both(store, shown("house"))


async def test_client_is_refused_when_it_does_not_speak_tls(
    store: card_store_processes.Store,
) -> None:
    with pytest.raises(errors.UnavailableError):
        await ask_both(store, protections.OPEN)
