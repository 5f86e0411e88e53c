"""What config.yaml asks for besides: teachers, certificates, tokens, keys."""

from __future__ import annotations

import datetime
import os
import pathlib
from collections.abc import Iterator, Mapping

from cryptography import x509

from services.gateway.command_line.doctor import findings
from shared import errors
from shared import settings as config
from shared.cards import keyring, signature
from shared.security import callers
from shared.security import protection as protections

_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_DOCUMENTS = (".md", ".txt", ".html", ".htm", ".pdf")
_SOON = datetime.timedelta(days=30)


def teachers(
    settings: config.Settings, environment: Mapping[str, str] = os.environ
) -> Iterator[findings.Finding]:
    """Who will teach, and whether each has what it needs."""
    chosen = settings.evolution.provider_type
    if chosen == "auto":
        chosen = "openai" if environment.get(_KEYS["openai"]) else "documents"
        why = "has a key" if chosen == "openai" else "OPENAI_API_KEY is not set"
        yield findings.ok("teachers", f"evolution.provider_type auto means {chosen}: {why}")
    for kind in dict.fromkeys(
        [chosen, *(teacher.provider_type for teacher in settings.evolution.fallbacks)]
    ):
        if kind in _KEYS:
            yield _key(kind, environment)
        elif kind == "documents":
            yield _documents(settings)
        else:
            yield findings.ok("teachers", f"{kind} needs no key")


def _key(kind: str, environment: Mapping[str, str]) -> findings.Finding:
    variable = _KEYS[kind]
    if environment.get(variable):
        return findings.ok("teachers", f"{kind}: {variable} is set; questions are sent there")
    return findings.error(
        "teachers",
        f"{kind} can't be asked: {variable} is not set here",
        f"set {variable} where you call `make up`, or name another teacher in evolution",
    )


def _documents(settings: config.Settings) -> findings.Finding:
    copied = settings.state_path("knowledge")
    folder = copied if copied.is_dir() else settings.distiller.knowledge_dir
    found = [path for path in folder.glob("**/*") if path.suffix.lower() in _DOCUMENTS]
    if found:
        return findings.ok("teachers", f"documents: {len(found)} in {folder}")
    return findings.warning(
        "teachers",
        f"documents: there is none in {folder}, so that nothing can be learned from it",
        "put some there, teach one (`make teach doc=PATH`), or configure another teacher",
    )


def tls(
    settings: config.Settings, now: datetime.datetime | None = None
) -> Iterator[findings.Finding]:
    """Whether the certificates can be read, belong together and hold."""
    chosen = settings.security.tls
    named = {"certificate": chosen.certificate, "authority": chosen.authority}
    if not any(named.values()):
        yield findings.ok("TLS", "not configured: services stay on this machine, unencrypted")
        return
    moment = now or datetime.datetime.now(datetime.UTC)
    try:
        protections.Protection.configured(settings)
    except errors.ConfigError as trouble:
        yield findings.error("TLS", str(trouble), "name the right files, or run `make certs`")
        return
    for name, path in named.items():
        if path is not None:
            for certificate in x509.load_pem_x509_certificates(path.read_bytes()):
                yield _holds(f"security.tls.{name}", path, certificate, moment)


def _holds(
    key: str, path: pathlib.Path, certificate: x509.Certificate, now: datetime.datetime
) -> findings.Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    mend = "run `make certs force=1`, or get a new one from your authority; then start again"
    if now < begin:
        return findings.error("TLS", f"{key}: {path} holds from {begin:%Y-%m-%d %H:%M} on", mend)
    if now >= end:
        return findings.error("TLS", f"{key}: {path} expired at {end:%Y-%m-%d %H:%M}", mend)
    if end - now < _SOON:
        return findings.warning("TLS", f"{key}: {path} expires in {(end - now).days} days", mend)
    return findings.ok("TLS", f"{key}: {path} holds until {end:%Y-%m-%d}")


def tokens(
    settings: config.Settings, environment: Mapping[str, str] = os.environ
) -> Iterator[findings.Finding]:
    """Whether the file of tokens can be read, and knows the token of this process."""
    security = settings.security
    own = environment.get(protections.TOKEN_VARIABLE, "").strip()
    if not own and security.token_file is not None:
        try:
            own = security.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as trouble:
            text = f"security.token_file can't be read: {trouble}"
            yield findings.error("tokens", text, "name the right file")
            return
    if security.tokens is None:
        said = "; this process shows one that nobody asks for" if own else ""
        yield findings.ok(
            "tokens", f"none are asked for: whoever reaches a service may use it{said}"
        )
        return
    try:
        admitted = callers.Callers(security.tokens)
        caller = admitted.identify(callers.header(own) if own else "")
    except errors.ConfigError as trouble:
        yield findings.error("tokens", str(trouble), "mend the file, or run `make certs`")
    except errors.UnauthenticatedError:
        text = (
            "this process has none"
            if not own
            else f"that of this process is not in {security.tokens}"
        )
        remedy = f"set {protections.TOKEN_VARIABLE} or security.token_file to one that is"
        yield findings.error("tokens", text, remedy)
    else:
        yield findings.ok("tokens", f"this process is {caller.name!r}, role {caller.role.value}")


def keys(settings: config.Settings) -> Iterator[findings.Finding]:
    """Whether there are signers to trust, and the trainer's own key is one of them."""
    if not settings.security.require_signatures:
        yield findings.warning(
            "signatures",
            "security.require_signatures is false: cards of anybody are served",
            "switch it on, unless that is meant",
        )
        return
    folder, own = settings.keyring_path(), settings.signing_key_path()
    trusted = list(folder.glob("*.pem")) if folder.is_dir() else []
    if not own.exists():
        if trusted:
            yield findings.ok("signatures", f"keys trusted in {folder}: {len(trusted)}")
        else:
            yield findings.ok("signatures", "the trainer makes its key at its first start")
        return
    try:
        signer = signature.Signer.load_or_make(own)
    except errors.ConfigError as trouble:
        yield findings.error("signatures", str(trouble), "see the message")
        return
    ring = keyring.Keyring(folder)
    if ring.find(signer.key_id) is not None:
        yield findings.ok("signatures", f"keys trusted: {len(trusted)}, the trainer's among them")
        return
    what = "is revoked" if ring.is_revoked(signer.key_id) else f"is not in {folder}"
    yield findings.error(
        "signatures",
        f"the trainer's key {signer.key_id} {what}: what it makes is trusted by nobody",
        "start the trainer again, which puts it there; for a revoked one remove "
        f"{own} first, and train again",
    )
