"""`transformers serve` as a process: a real server that speaks OpenAI's protocol, on loopback.

Serves a model of a folder and loads nothing from any hub.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

_NEEDED = ("fastapi", "uvicorn", "openai")
_START_S = 300.0
_STOP_S = 30.0


def missing() -> str:
    """What must be installed before a server can be started; empty for nothing."""
    return ", ".join(name for name in _NEEDED if importlib.util.find_spec(name) is None)


@contextlib.contextmanager
def serving(checkpoint: pathlib.Path, folder: pathlib.Path) -> Iterator[str]:
    """A server that answers with the model of a folder, until the block ends.

    Args:
        checkpoint: the model and its tokenizer.
        folder: takes the log, and what the server would keep elsewhere.

    Yields:
        The base URL for clients.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(pathlib.Path(sys.executable).with_name("transformers")), "serve", str(checkpoint)),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"),
    ]
    quiet = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hub"),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | quiet
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: pathlib.Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-4000:]}")
