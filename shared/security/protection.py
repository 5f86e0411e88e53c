"""How the connections of one process are protected: its certificate, its token, whom it lets in.

Made once from the settings, in `server.py` or where the command line begins, and handed to
whatever opens a connection. Knows bytes of certificates, and nothing about services.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shared import errors
from shared import settings as config
from shared.security import callers

TOKEN_VARIABLE = "SKILLMESH_TOKEN"
_TOKEN = re.compile(r"[\x21-\x7e]*")
"""What a header of a call can carry; empty for none."""
_OTHERS = 0o077
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Protection:
    """What a process shows to others and asks of them; by default nothing."""

    certificate: bytes = b""
    """PEM; shown to clients, and to servers that ask."""
    key: bytes = dataclasses.field(default=b"", repr=False)
    authority: bytes = b""
    """PEM of those whose certificates are believed; empty: those of the system."""
    server_name: str = ""
    """Asked for in the certificates of servers, instead of the host of their address."""
    client_certificates: bool = False
    """Whether its servers take only clients with a certificate of the authority."""
    token: str = dataclasses.field(default="", repr=False)
    """Shown in every call."""
    admitted: callers.Callers = dataclasses.field(default_factory=callers.Callers)
    """Who may call its servers."""

    @classmethod
    def configured(
        cls, settings: config.Settings, environment: Mapping[str, str] = os.environ
    ) -> Protection:
        """As the settings say.

        Raises:
            errors.ConfigError: a file is missing or is not what it should be; names its key.
        """
        security = settings.security
        protection = cls(
            certificate=_read(security.tls.certificate, "tls.certificate"),
            key=_read_secret(security.tls.key, "tls.key"),
            authority=_read(security.tls.authority, "tls.authority"),
            server_name=security.tls.server_name,
            client_certificates=security.tls.client_certificates,
            token=environment.get(TOKEN_VARIABLE, "").strip()
            or _read_secret(security.token_file, "token_file").decode(errors="replace").strip(),
            admitted=callers.Callers(security.tokens),
        )
        protection.check()
        return protection

    @property
    def encrypts_calls(self) -> bool:
        """Whether it calls others over TLS."""
        return bool(self.certificate or self.authority)

    @property
    def encrypts_serving(self) -> bool:
        """Whether its servers speak TLS."""
        return bool(self.certificate)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """For gRPC clients; None where calls are not encrypted."""
        if not self.encrypts_calls:
            return None
        return grpc.ssl_channel_credentials(
            self.authority or None, self.key or None, self.certificate or None
        )

    def channel_options(self) -> tuple[tuple[str, str], ...]:
        """Options of gRPC channels."""
        if not (self.server_name and self.encrypts_calls):
            return ()
        return (("grpc.ssl_target_name_override", self.server_name),)

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """For gRPC servers; None where they do not encrypt."""
        if not self.encrypts_serving:
            return None
        return grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            self.authority or None,
            require_client_auth=self.client_certificates,
        )

    def flight_client_options(self) -> dict[str, Any]:
        """Keyword arguments of `pyarrow.flight.FlightClient`."""
        if not self.encrypts_calls:
            return {}
        options = {
            "tls_root_certs": self.authority or None,
            "cert_chain": self.certificate or None,
            "private_key": self.key or None,
            "override_hostname": self.server_name or None,
        }
        return {name: value for name, value in options.items() if value is not None}

    def flight_server_options(self) -> dict[str, Any]:
        """Keyword arguments of `pyarrow.flight.FlightServerBase`."""
        if not self.encrypts_serving:
            return {}
        options: dict[str, Any] = {"tls_certificates": [(self.certificate, self.key)]}
        if self.client_certificates:
            options |= {"verify_client": True, "root_certificates": self.authority}
        return options

    def check(self) -> None:
        """Looks at token and certificates: what gRPC says about bad ones helps nobody.

        Raises:
            errors.ConfigError: they can't be read, or the key belongs to another.
        """
        if not _TOKEN.fullmatch(self.token):
            raise errors.ConfigError(
                f"security.token_file (or {TOKEN_VARIABLE}) holds no token: expected one line of "
                "letters, digits and signs, such as `make certs` prints"
            )
        if self.authority:
            _certificate(self.authority, "tls.authority")
        if not self.certificate:
            return
        own = _certificate(self.certificate, "tls.certificate")
        try:
            key = serialization.load_pem_private_key(self.key, password=None)
        except (ValueError, TypeError) as error:
            raise errors.ConfigError(f"security.tls.key is no private key: {error}") from error
        if key.public_key() != own.public_key():
            raise errors.ConfigError("security.tls.key does not belong to security.tls.certificate")
        if own.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
            _log.error("certificate has expired", expired_at=str(own.not_valid_after_utc))


OPEN = Protection()
"""No encryption, no token, everybody may call: for loopback and trusted networks."""


def is_refused_certificate(details: str) -> bool:
    """Whether a failed connection failed for a certificate, by what gRPC or Flight says of it."""
    return "CERTIFICATE_VERIFY_FAILED" in details


def refused_certificate(details: str) -> errors.UnauthenticatedError:
    """Says so; another try would end alike."""
    reason = details.rpartition("CERTIFICATE_VERIFY_FAILED")[2].strip(": ")
    return errors.UnauthenticatedError(
        f"the other side's certificate is not believed: {reason.splitlines()[0]}; check "
        "security.tls.authority here, and the certificate there"
    )


def _certificate(pem: bytes, key: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise errors.ConfigError(f"security.{key} holds no certificate in PEM: {error}") from error


def _read(path: pathlib.Path | None, key: str) -> bytes:
    if path is None:
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.ConfigError(
            f"security.{key}: {path} can't be read: {error}; `make certs` makes a set for "
            "development"
        ) from error


def _read_secret(path: pathlib.Path | None, key: str) -> bytes:
    content = _read(path, key)
    if path is not None and path.stat().st_mode & _OTHERS:
        # No error: mounted secrets often can't have another mode.
        _log.warning("other users can open a secret", key=f"security.{key}", file=str(path))
    return content
