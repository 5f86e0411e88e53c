"""`export` and `import`: cards as files and PEFT directories, to and from the store.

What belongs to models is left to `python -m services.trainer.cards`: here a PEFT directory becomes
a card of the base model that the cluster runs, and no other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import hashlib
import pathlib
from collections.abc import Callable
from typing import TypeVar

from services.gateway import domain
from services.gateway.calls import peers
from services.gateway.command_line import card_page, reaching
from shared import atomic, errors, terminal
from shared import settings as config
from shared.cards import card as cards
from shared.cards import format as formats
from shared.cards import manifest as manifests
from shared.cards import peft_layout, signature
from shared.flight import client as flight_client
from shared.security import protection as protections

T = TypeVar("T")
SIGNATURE_SUFFIX = ".dsse.json"
"""Behind the name of a card's file: who vouches for it."""


class What(enum.StrEnum):
    """What an export writes."""

    PEFT = "peft"
    CARD = "card"
    BOTH = "both"


async def export(reference: str, folder: pathlib.Path, what: What, as_json: bool) -> None:
    """Writes a card of the store into a folder.

    Args:
        reference: name, name@alias, name@digest, or a digest or its beginning.
        folder: made if it is not there; files of the same names in it are replaced.
        what: a PEFT directory; the card's own file with its signature; or both.
        as_json: print one JSON object.

    Raises:
        errors.IntegrityError: the store's data plane sent something else.
        errors.InvalidInputError: PEFT can't hold the card.
        terminal.UsageError: the folder can't be written.
    """
    settings = config.load()
    record, data = await reaching.asked(lambda services: _fetched(services, settings, reference))
    card = formats.LoRAFormat.from_bytes(data, reference)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if what is not What.CARD:
            peft_layout.export(card, folder)
            written += [peft_layout.CONFIG_FILE, peft_layout.WEIGHTS_FILE]
        if what is not What.PEFT:
            name = f"{record.card.name}-{record.card.version}{formats.SUFFIX}"
            atomic.write(folder / name, data)
            written.append(name)
            if record.signature_json:
                atomic.write(folder / (name + SIGNATURE_SUFFIX), record.signature_json.encode())
                written.append(name + SIGNATURE_SUFFIX)
    except OSError as error:
        raise terminal.UsageError(f"folder {folder}: {error.strerror}") from error
    told = {
        "name": record.card.name,
        "version": record.card.version,
        "digest": record.card.digest,
        "folder": str(folder),
        "files": written,
        "signers": card_page.signers(record.signature_json),
    }
    if as_json:
        terminal.print_json(told)
        return
    terminal.RESULT.print(
        terminal.escape(f"{record.card.reference} is in {folder}: {', '.join(written)}"),
        soft_wrap=True,
    )


async def _fetched(
    services: peers.Peers, settings: config.Settings, reference: str
) -> tuple[domain.CardRecord, bytes]:
    record = await card_page.found(services, reference)
    if record.card.is_remote:
        await services.store.bring(record.card.digest)
    address = (await services.store.status()).flight_address
    return record, await asyncio.to_thread(_got, settings, address, record.card.digest)


def _got(settings: config.Settings, address: str, digest: str) -> bytes:
    """The bytes of a card, checked against its digest."""
    return _with_data_plane(settings, address, lambda plane: plane.get(digest))


def _with_data_plane(
    settings: config.Settings, address: str, use: Callable[[flight_client.LoRAFlightClient], T]
) -> T:
    plane = flight_client.LoRAFlightClient(address, protections.Protection.configured(settings))
    try:
        return use(plane)
    finally:
        plane.close()


@dataclasses.dataclass(frozen=True)
class _Incoming:
    """A card that is to be published."""

    card: cards.LoRACard
    data: bytes
    signature_json: str
    source: str
    """What it was read from, for people."""

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


async def import_card(
    path: pathlib.Path, name: str, version: str, sign: bool, as_json: bool
) -> None:
    """Publishes a card's file or a PEFT directory.

    Args:
        path: a card's file, or a folder with one, or a PEFT directory.
        name: of a card that is made of a PEFT directory; by default the folder's.
        version: of such a card.
        sign: vouch for it with the trainer's key on this machine.
        as_json: print one JSON object.

    Raises:
        terminal.UsageError: there is no such thing.
        errors.UntrustedError: the cluster takes signed cards alone, and this one is not, or by
            somebody whom the keyring does not know.
        errors.BaseModelMismatchError: the cluster runs another base model.
    """
    settings = config.load()
    file = _card_file(path)
    incoming = _read(file) if file else await _of_peft(path, name, version)
    if file and (name or version):
        raise terminal.UsageError("a card's file has its name and version; they can't be changed")
    signed = _vouched(settings, incoming) if sign else incoming
    signer = _check_trust(settings, signed)
    card = await reaching.asked(lambda services: _published(services, settings, signed))
    told = {**dataclasses.asdict(card), "source": signed.source, "signer": signer}
    if as_json:
        terminal.print_json(told)
        return
    whose = f"signed by {signer}" if signer else "not signed: this cluster takes it all the same"
    terminal.RESULT.print(
        terminal.escape(f"{card.reference} is published, from {signed.source}; {whose}"),
        soft_wrap=True,
    )


def _card_file(path: pathlib.Path) -> pathlib.Path | None:
    """The card's file that a path leads to; None for a PEFT directory.

    Raises:
        terminal.UsageError: there is neither, or there are several.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise terminal.UsageError(f"{path}: there is no such file or folder")
    files = sorted(path.glob(f"*{formats.SUFFIX}"))
    if len(files) > 1:
        raise terminal.UsageError(f"{path} holds {len(files)} cards; name one of their files")
    if not files and not (path / peft_layout.CONFIG_FILE).is_file():
        raise terminal.UsageError(
            f"{path} holds neither a card (*{formats.SUFFIX}) nor a PEFT adapter "
            f"({peft_layout.CONFIG_FILE})"
        )
    return files[0] if files else None


def _read(file: pathlib.Path) -> _Incoming:
    card = formats.LoRAFormat.load(file)
    beside = file.with_name(file.name + SIGNATURE_SUFFIX)
    envelope = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    return _Incoming(card, file.read_bytes(), envelope, str(file))


async def _of_peft(folder: pathlib.Path, name: str, version: str) -> _Incoming:
    """A card of the base model that the cluster's node runs."""
    adapter = peft_layout.read(folder)
    node = await reaching.asked(lambda services: services.inference.status())
    made_for = adapter.base_model_id
    if made_for and made_for != node.base_model:
        raise errors.BaseModelMismatchError(
            f"{folder} was made for {made_for}, this cluster runs {node.base_model}; configure "
            "that model, or make a card of it by `python -m services.trainer.cards import` if both "
            "have the same weights"
        )
    manifest = manifests.Manifest(
        name=name or manifests.slug(folder.resolve().name),
        version=version or "0.1.0",
        base_model=manifests.BaseModelReference(
            id=node.base_model, revision=adapter.revision, fingerprint=node.base_fingerprint
        ),
        target_modules=(),
        domain="",
        description=f"Imported from {folder.resolve().name}",
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    card = peft_layout.to_card(adapter, manifest)
    return _Incoming(card, formats.LoRAFormat.to_bytes(card), "", str(folder))


def _vouched(settings: config.Settings, incoming: _Incoming) -> _Incoming:
    """The same, signed with the trainer's key of this machine.

    Raises:
        errors.ConfigError: there is none.
    """
    path = settings.signing_key_path()
    if not path.exists():
        raise errors.ConfigError(
            f"there is no key {path} to sign with: it is on the machine where the trainer runs, "
            "which makes it at its first start"
        )
    signer = signature.Signer.load_or_make(path)
    return dataclasses.replace(incoming, signature_json=signer.sign(_statement(incoming)))


def _statement(incoming: _Incoming) -> signature.Statement:
    manifest = incoming.card.manifest
    return signature.Statement(
        manifest.name, manifest.version, incoming.digest, manifest.base_model.fingerprint
    )


def _check_trust(settings: config.Settings, incoming: _Incoming) -> str:
    """The key that signed it; empty where it is not signed and need not be."""
    if not incoming.signature_json:
        if settings.security.require_signatures:
            raise errors.UntrustedError(
                f"{incoming.source} is not signed, and this cluster takes signed cards alone "
                "(security.require_signatures). --sign vouches for it with the trainer's key: "
                "every node will trust it as if it had passed the gate here"
            )
        return ""
    keyring = signature.Trust.configured(settings).keyring
    return signature.verify(incoming.signature_json, _statement(incoming), keyring)


async def _published(
    services: peers.Peers, settings: config.Settings, incoming: _Incoming
) -> domain.Card:
    address = (await services.store.status()).flight_address
    await asyncio.to_thread(
        _with_data_plane, settings, address, lambda plane: plane.put("card", incoming.data)
    )
    return await services.store.commit(incoming.digest, incoming.signature_json)
