"""How the process of any service begins and ends."""

from __future__ import annotations

import pathlib
import subprocess
import sys

_SERVICE = """
import gc
from shared.rpc import process

kept = []

async def serve(settings):
    print(gc.get_freeze_count())
    kept.extend([number] for number in range(10_000))

process.run("router", serve)
print(gc.get_freeze_count())
"""


def test_no_collection_looks_through_what_stays_when_a_process_serves_and_ends(
    tmp_path: pathlib.Path,
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("{}")
    command = [sys.executable, "-c", _SERVICE, "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    served, ended = map(int, done.stdout.split())
    assert served > 10_000 and ended >= served + 10_000
