"""Cards in the folder of a node: reused when right, fetched again when not."""

from __future__ import annotations

import pytest

from services.inference import card_files
from shared import errors
from shared.cards import format as formats
from tests import fakes

_NOWHERE = "127.0.0.1:1"


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


@pytest.mark.parametrize("digest", ["../../etc/passwd", "", "A" * 64])
def test_digest_is_refused_when_it_is_none(digest, tmp_path):
    with pytest.raises(errors.InvalidInputError, match="SHA-256"):
        card_files.CardFiles(tmp_path).card(digest, _NOWHERE)
