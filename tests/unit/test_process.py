"""How a service process ends."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import gc
from shared.rpc import process

class Node:
    def __init__(self):
        self.me = self
    def __del__(self):
        print("searched for cycles")

async def serve(settings):
    gc.disable()
    Node()
    print("served")

process.run("router", serve)
"""


def test_process_ends_without_a_search_for_cycles_when_it_is_told_to_stop() -> None:
    environment = {**os.environ, "SKILLMESH__TELEMETRY__METRICS__ENABLED": "false"}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout.split("\n")) == (0, ["served", ""]), ended.stderr
