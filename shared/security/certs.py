"""`make certs`: a development authority, a certificate of it, and tokens for every role.

For trying TLS and roles out on machines of one's own; an organisation has an authority already.
Everything lies in `certs` of the state folder, which is copied to the machines that were named.
Tokens are shown once and kept as hashes alone.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import pathlib
import secrets
import socket
import sys
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import oid

from shared import atomic, errors
from shared import settings as config
from shared.cards import signature
from shared.security import callers

VALID_DAYS = 365
_FORCE_VARIABLE = "SKILLMESH_ARG_force"
_NAMES_VARIABLE = "SKILLMESH_ARG_names"
_COMMON_NAME = "skillmesh"
"""For `security.tls.server_name`: of services whose addresses nobody knows beforehand."""
_AUTHORITY_NAME = "skillmesh development authority"


def make(
    folder: pathlib.Path,
    names: Sequence[str],
    force: bool = False,
    now: datetime.datetime | None = None,
) -> dict[str, str]:
    """Makes everything.

    Args:
        folder: gets authority.pem, authority.key, service.pem, service.key and tokens.json.
        names: host names and addresses that the certificate is for, besides this machine's.
        force: replaces what is there.
        now: when the certificates begin; by default a minute ago.

    Returns:
        Role to its token, which stands nowhere else.

    Raises:
        errors.AlreadyExistsError: there are certificates already.
    """
    if (folder / "authority.pem").exists() and not force:
        raise errors.AlreadyExistsError(
            f"{folder} has certificates already; make certs force=1 replaces them, and every token"
        )
    begin = now or datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=1)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate(_AUTHORITY_NAME, authority_key.public_key(), begin)
    authority = authority.add_extension(x509.BasicConstraints(True, 0), critical=True)
    service = _certificate(_COMMON_NAME, key.public_key(), begin)
    alternatives = x509.SubjectAlternativeName(_alternatives(names))
    service = service.add_extension(alternatives, critical=False)
    folder.mkdir(parents=True, exist_ok=True)
    _write_key(folder / "authority.key", authority_key)
    _write_key(folder / "service.key", key)
    for name, builder in (("authority", authority), ("service", service)):
        signed = builder.sign(authority_key, hashes.SHA256())
        atomic.write(folder / f"{name}.pem", signed.public_bytes(serialization.Encoding.PEM))
    tokens = {role.value: secrets.token_urlsafe(32) for role in callers.Role}
    entries = [
        {
            "name": role,
            "sha256": callers.hash_of(token),
            "role": role,
            "tenants": [callers.EVERY_TENANT],
        }
        for role, token in tokens.items()
    ]
    atomic.write(folder / "tokens.json", json.dumps(entries, indent=2).encode())
    return tokens


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, begin: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(_AUTHORITY_NAME))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=VALID_DAYS))
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid.NameOID.COMMON_NAME, name)])


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    own = ["localhost", "127.0.0.1", _COMMON_NAME, socket.gethostname()]
    for name in dict.fromkeys([*own, *names]):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _write_key(path: pathlib.Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_secret(path, pem)


def _write_secret(path: pathlib.Path, content: bytes) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    part.replace(path)


def main() -> None:
    """Makes them in the state folder of config.yaml and says how they are used."""
    parser = argparse.ArgumentParser(prog="make certs")
    parser.add_argument("names", nargs="*", help="further host names and addresses")
    parser.add_argument(
        "--token-files", action="store_true", help="also write each token to ROLE.token"
    )
    parser.add_argument(
        "--signing-key", action="store_true", help="also make the trainer's key, signing.key"
    )
    arguments = parser.parse_args()
    names = [*arguments.names, *os.environ.get(_NAMES_VARIABLE, "").split()]
    folder = config.load().state_path("certs").absolute()
    try:
        tokens = make(folder, names, force=bool(os.environ.get(_FORCE_VARIABLE)))
        if arguments.token_files:
            for role, token in tokens.items():
                _write_secret(folder / f"{role}.token", token.encode())
        if arguments.signing_key:
            # For trainers that can't keep what they make at their first start.
            signer = signature.Signer.load_or_make(folder / "signing.key")
            atomic.write(folder / "signing.pem", signer.public_pem())
    except (errors.SkillmeshError, OSError) as error:
        sys.exit(f"certs: {error}")
    print(f"made in {folder}; in config.yaml:\n\nsecurity:\n  tls:")
    for key, file in (
        ("certificate", "service.pem"),
        ("key", "service.key"),
        ("authority", "authority.pem"),
    ):
        print(f"    {key}: {folder / file}")
    print(f"  tokens: {folder / 'tokens.json'}\n")
    print("tokens, shown this once; a process has its own in SKILLMESH_TOKEN:")
    for role, token in tokens.items():
        print(f"  {role:9} {token}")


if __name__ == "__main__":
    main()
