"""Cards in the folder of a node: reused when right, fetched again when not, within a budget."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.flight
import pytest

from services.inference import card_files
from shared import errors
from shared.cards import card as cards
from shared.cards import format as formats
from shared.flight import client as flight
from tests import fakes

_NOWHERE = "127.0.0.1:1"


class _Store(pyarrow.flight.FlightServerBase):
    """Sends the files that it was given, and remembers which."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []

    def add(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.files[digest] = data
        return digest

    def add_card(self, seed: int) -> str:
        return self.add(formats.LoRAFormat.to_bytes(fakes.tiny_card(seed=seed)))

    def do_get(self, context, ticket):
        self.sent.append(json.loads(ticket.ticket)["digest"])
        chunk = pa.array([self.files[self.sent[-1]]], pa.large_binary())
        table = pa.table([chunk], schema=flight.RAW_SCHEMA)
        return pyarrow.flight.RecordBatchStream(table)


@pytest.fixture
def store() -> Iterator[_Store]:
    with _Store() as made:
        yield made


def _file(folder: pathlib.Path, digest: str) -> pathlib.Path:
    return folder / f"{digest}{formats.SUFFIX}"


def _kept(folder: pathlib.Path) -> set[str]:
    return {path.name.removesuffix(formats.SUFFIX) for path in folder.iterdir()}


def test_kept_file_is_used_when_its_digest_is_right(tmp_path):
    card = fakes.tiny_card()
    kept = tmp_path / "card"
    digest = formats.LoRAFormat.save(card, kept)
    kept.rename(tmp_path / f"{digest}{formats.SUFFIX}")
    assert card_files.CardFiles(tmp_path).card(digest, _NOWHERE).manifest == card.manifest


def test_card_is_fetched_when_the_kept_file_is_damaged(tmp_path):
    digest = "0" * 64
    (tmp_path / f"{digest}{formats.SUFFIX}").write_bytes(b"damaged")
    with pytest.raises(errors.UnavailableError, match=_NOWHERE):
        card_files.CardFiles(tmp_path).card(digest, _NOWHERE)


def test_card_is_fetched_again_when_the_kept_file_is_no_card(tmp_path, store, monkeypatch):
    digest = store.add_card(0)
    limit = len(store.files[digest])
    _file(tmp_path, digest).write_bytes(b"x" * (limit + 1))
    monkeypatch.setattr(formats, "LARGEST_FILE_BYTES", limit)
    with pytest.raises(errors.CardFormatError, match="at most"):  # Before its digest is looked at.
        formats.LoRAFormat.load(_file(tmp_path, digest), digest)
    files = card_files.CardFiles(tmp_path)
    assert isinstance(files.card(digest, store.address), cards.LoRACard)
    assert isinstance(files.card(digest, _NOWHERE), cards.LoRACard)
    assert store.sent == [digest]


def test_card_is_refused_after_one_fetch_when_the_store_has_a_malformed_one(tmp_path, store):
    digest = store.add(b"no card at all")
    for fetches in (1, 2):
        with pytest.raises(errors.CardFormatError, match="not a readable Arrow file"):
            card_files.CardFiles(tmp_path).card(digest, store.address)
        assert len(store.sent) == fetches


def test_oldest_cards_are_removed_when_the_budget_is_spent(tmp_path, store):
    a, b, c, d = (store.add_card(seed) for seed in range(4))
    size_bytes = len(store.files[a])
    files = card_files.CardFiles(tmp_path, most_bytes=2 * size_bytes)
    for age, digest in enumerate((a, b)):
        files.card(digest, store.address)
        os.utime(_file(tmp_path, digest), (age, age))
    files.card(a, _NOWHERE)  # Its use makes it the newest.
    files.card(c, store.address)
    assert _kept(tmp_path) == {a, c}
    os.utime(_file(tmp_path, c), (1, 1))
    files.card(d, store.address)
    assert _kept(tmp_path) == {a, d}


def test_fetched_card_is_kept_when_it_alone_is_beyond_the_budget(tmp_path, store):
    a, b = store.add_card(0), store.add_card(1)
    files = card_files.CardFiles(tmp_path, most_bytes=1)
    before = files.card(a, store.address)
    files.card(b, store.address)
    assert _kept(tmp_path) == {b}
    assert formats.LoRAFormat.to_bytes(before) == store.files[a]  # Mapped, though removed.


def test_card_that_is_just_coming_is_kept_when_another_spends_the_budget(
    tmp_path, store, monkeypatch
):
    a, b = store.add_card(0), store.add_card(1)
    files = card_files.CardFiles(tmp_path, most_bytes=1)
    load = formats.LoRAFormat.load

    def load_late(path: pathlib.Path, digest: str) -> cards.LoRACard:
        if path == _file(tmp_path, a) and path.is_file() and b not in store.sent:
            files.card(b, store.address)
        return load(path, digest)

    monkeypatch.setattr(formats.LoRAFormat, "load", load_late)
    assert isinstance(files.card(a, store.address), cards.LoRACard)
    assert store.sent == [a, b]
    assert _kept(tmp_path) == {a, b}


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64])
def test_digest_is_refused_when_it_is_none(digest, tmp_path):
    with pytest.raises(errors.InvalidInputError, match="SHA-256"):
        card_files.CardFiles(tmp_path).card(digest, _NOWHERE)
