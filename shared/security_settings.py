"""Section `security` of config.yaml; see `shared.settings`."""

from __future__ import annotations

import pathlib

import pydantic

from shared import sections


class Tls(sections.Section):
    """Certificates, in PEM; `make certs` makes a set. Without them nothing is encrypted."""

    certificate: pathlib.Path | None = None
    """This process's own, with intermediate ones; shown to clients, and to servers that ask."""
    key: pathlib.Path | None = None
    """Its private key."""
    authority: pathlib.Path | None = None
    """Of those who issue the certificates that are believed."""
    server_name: str = ""
    """The name that every service's certificate is for, whatever address it is reached at; empty:
    the host of that address. `make certs` makes certificates for `skillmesh`, too."""
    client_certificates: bool = False
    """Servers take only clients that show a certificate of the authority (mTLS)."""

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Tls:
        """Half a configuration would be none."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("tls: certificate and key come together; set both or neither")
        if self.client_certificates and (self.authority is None or self.certificate is None):
            raise ValueError("tls: client_certificates needs certificate, key and authority")
        return self


class Security(sections.Section):
    """Whose cards are trusted, who may call, and how connections are protected."""

    keyring: pathlib.Path | None = None
    """Folder of trusted signers' public keys, *.pem; by default `keyring` in the state folder."""
    signing_key: pathlib.Path | None = None
    """The trainer's private key, made where it is missing; by default `keys/trainer.pem` in the
    state folder."""
    require_signatures: bool = True
    """Unsigned cards are neither published nor served."""
    tls: Tls = Tls()
    """Encrypts every connection between services, once it names a certificate or an authority."""
    tokens: pathlib.Path | None = None
    """File of those who may call, as `make certs` writes it; without one everybody may."""
    token_file: pathlib.Path | None = None
    """File with the token of this process; SKILLMESH_TOKEN in the environment goes before."""
