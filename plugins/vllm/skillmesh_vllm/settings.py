"""What the environment says: the store, the base model, the folder for cards, vLLM's own address.

Environment variables, because that is how vLLM itself configures resolvers.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping

STORE = "SKILLMESH_STORE"
BASE_FINGERPRINT = "SKILLMESH_BASE_FINGERPRINT"
_DEFAULT_CACHE = "~/.cache/skillmesh-vllm"
_DEFAULT_CACHE_MIB = "8192"
_DEFAULT_VLLM_URL = "http://127.0.0.1:8000"
_DEFAULT_FOLLOW_S = "1"


@dataclasses.dataclass(frozen=True)
class Store:
    """How the store's data plane is reached."""

    location: str
    """`grpc://host:port`, or `grpc+tls://host:port`."""
    token: str = dataclasses.field(default="", repr=False)
    """Bearer token; empty for none."""
    authority: bytes | None = None
    """PEM of the authority that signed the store's certificate; None for the system's."""
    certificate: bytes | None = None
    """PEM by which this client shows who it is, where the store asks for that."""
    key: bytes | None = dataclasses.field(default=None, repr=False)
    """PEM of that certificate's private key."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of it."""

    store: Store
    base_fingerprint: str
    """Of the base model that this vLLM serves."""
    cache: pathlib.Path
    cache_bytes: int
    vllm_url: str
    """Where this vLLM listens."""
    vllm_api_key: str = dataclasses.field(repr=False)
    follow_s: float
    """How often the store is asked whether names still mean what they meant."""


def from_environment(environment: Mapping[str, str]) -> Settings | None:
    """The settings, or None where no store is named.

    Raises:
        ValueError: names the variable that is missing or wrong.
    """
    location = environment.get(STORE, "")
    if not location:
        return None
    if "://" not in location:
        location = f"grpc://{location}"
    if not re.fullmatch(r"grpc(\+tls)?://[^/\s]+:\d{1,5}", location):
        raise ValueError(
            f"{STORE}={environment[STORE]!r}: expected the address of the store's data plane, "
            "host:port or grpc+tls://host:port"
        )
    fingerprint = environment.get(BASE_FINGERPRINT, "")
    if not re.fullmatch("[0-9a-f]{64}", fingerprint):
        raise ValueError(
            f"{BASE_FINGERPRINT}={fingerprint!r}: expected the base model's fingerprint, 64 hex "
            "digits, as any card made for it names it"
        )
    store = Store(
        location,
        _token(environment),
        _file(environment, "SKILLMESH_TLS_AUTHORITY"),
        _file(environment, "SKILLMESH_TLS_CERTIFICATE"),
        _file(environment, "SKILLMESH_TLS_KEY"),
    )
    if store.token and not location.startswith("grpc+tls://") and not _is_loopback(location):
        raise ValueError(f"{STORE}={location!r}: a token would travel unencrypted; use grpc+tls://")
    return Settings(
        store=store,
        base_fingerprint=fingerprint,
        cache=pathlib.Path(environment.get("SKILLMESH_VLLM_CACHE") or _DEFAULT_CACHE).expanduser(),
        cache_bytes=int(
            _number(environment, "SKILLMESH_VLLM_CACHE_MIB", _DEFAULT_CACHE_MIB) * 2**20
        ),
        vllm_url=(environment.get("SKILLMESH_VLLM_URL") or _DEFAULT_VLLM_URL).rstrip("/"),
        vllm_api_key=environment.get("VLLM_API_KEY", ""),
        follow_s=_number(environment, "SKILLMESH_VLLM_FOLLOW_S", _DEFAULT_FOLLOW_S),
    )


def _token(environment: Mapping[str, str]) -> str:
    content = _file(environment, "SKILLMESH_TOKEN_FILE")
    token = environment.get("SKILLMESH_TOKEN", "") if content is None else content.decode()
    return token.strip()


def _file(environment: Mapping[str, str], variable: str) -> bytes | None:
    if not environment.get(variable):
        return None
    try:
        return pathlib.Path(environment[variable]).read_bytes()
    except OSError as error:
        raise ValueError(f"{variable}={environment[variable]!r}: {error}") from error


def _number(environment: Mapping[str, str], variable: str, default: str) -> float:
    text = environment.get(variable) or default
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ValueError(f"{variable}={text!r}: expected a positive number")
    return number


def _is_loopback(location: str) -> bool:
    host = location.partition("://")[2].rpartition(":")[0]
    return host in ("localhost", "[::1]") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None
