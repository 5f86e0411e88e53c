"""The examples that need a service."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys

from tests.contract import card_store_processes

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_card_arrives_whole_when_plain_flight_asks_for_it(tmp_path: pathlib.Path) -> None:
    store = card_store_processes.Store(tmp_path / "store")
    try:
        data = card_store_processes.card_bytes("ferries")
        assert asyncio.run(store.publish(data))
        done = subprocess.run(
            [sys.executable, ROOT / "examples/flight_client.py", store.flight_address, "ferries"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
    finally:
        store.stop()
    assert done.returncode == 0, done.stderr
    assert "ferries 1.0.0" in done.stdout and "'rank'" in done.stdout
    assert (tmp_path / "ferries.lora.arrow").read_bytes() == data
