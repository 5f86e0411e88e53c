"""A store's trust: its keyring's, but for the keys that its catalogue revokes."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from services.card_store import trust
from shared import errors
from shared.cards import keyring as keyrings
from shared.cards import signature
from tests import fakes
from tests.unit.card_store.catalogue_cards import card
from tests.unit.card_store.house import House

FIRST, SECOND = fakes.signer(0), fakes.signer(1)


def trust_of(house: House, folder: pathlib.Path) -> trust.Trust:
    keyring = keyrings.Keyring(fakes.keyring(folder, SECOND))
    return trust.Trust(signature.Trust(keyring), house.cards.retirement)


def test_key_is_distrusted_at_once_and_after_a_restart_when_the_catalogue_revokes_it(
    house: House, tmp_path: pathlib.Path
) -> None:
    record = card(1)
    statement = signature.Statement("sql", "1.0.0", record.digest, record.base_fingerprint)
    by_first = FIRST.sign(statement)
    both = json.loads(by_first)
    both["signatures"] += json.loads(SECOND.sign(statement))["signatures"]
    by_first_alone = dataclasses.replace(record, signature_json=by_first)
    by_both = dataclasses.replace(record, signature_json=json.dumps(both))
    running = trust_of(house, tmp_path)
    assert running.verify(by_first_alone) == running.verify(by_both) == FIRST.key_id
    house.cards.retirement.revoke_key(FIRST.key_id, "stolen")
    for looking in (running, trust_of(house, tmp_path)):
        with pytest.raises(errors.UntrustedError, match="is revoked"):
            looking.verify(by_first_alone)
        # Another signer still vouches for it.
        assert looking.verify(by_both) == SECOND.key_id
