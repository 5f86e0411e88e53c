"""The commands, run as processes, the way a user's shell runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from services.gateway.cluster import cluster
from shared import settings as config

_LIMIT_S = 900


def run(local: cluster.Cluster, name: str, **arguments: str) -> Any:
    """The JSON that a command prints."""
    given = {f"SKILLMESH_ARG_{key}": value for key, value in arguments.items()}
    done = subprocess.run(
        [sys.executable, "-m", "services.gateway", name],
        cwd=cluster.ROOT,
        env=os.environ
        | {config.CONFIG_VARIABLE: str(local.state_dir / "config.yaml"), "SKILLMESH_ARG_json": "1"}
        | given,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
