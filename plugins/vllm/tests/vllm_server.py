"""A real vLLM as a process on loopback, with the embedded model and the plugin in it."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping

import openai
import skillmesh_vllm

from shared.models import base as bases

API_KEY = "key"
MODEL = "embedded"
SLOTS = 2
LARGEST_RANK = 8
UP_S, _DOWN_S = 300.0, 60.0
_LOOKS = 1000
UP = "Application startup complete"


class VllmServer:
    """Listens once it has said `UP`, within `UP_S`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Starts it.

        Args:
            environment: what it is told besides, such as the plugin's variables.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # `vllm serve` itself asks for the version of a package `vllm`, which a build for CPUs
        # under another name does not have.
        command = [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(bases.EMBEDDED_FOLDER), "--served-model-name", MODEL),
            *("--host", "127.0.0.1", "--port", str(port), "--api-key", API_KEY),
            *("--enable-lora", "--max-loras", str(SLOTS), "--max-lora-rank", str(LARGEST_RANK)),
            # As the reference computes, and without a compiler's minutes.
            *("--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", "512", "--max-num-seqs", "8"),
        ]
        plugin = pathlib.Path(skillmesh_vllm.__file__).parents[1]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ
            | {
                # The plugin of this tree, not the one that was installed for its entry point.
                "PYTHONPATH": str(plugin),
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
                "VLLM_API_KEY": API_KEY,
                "SKILLMESH_VLLM_URL": self.url,
            }
            | dict(environment),
        )
        self._log: list[str] = []
        self._heard = threading.Condition()
        self._is_over = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def until(self, text: str, timeout_s: float = 30.0) -> None:
        """Waits for a line of the log; fails where the process ends before; give it a thread."""
        with self._heard:
            self._heard.wait_for(lambda: self._is_over or self._said(text), timeout_s)
            assert self._said(text), "".join(self._log)

    def until_running(self, count: int) -> None:
        """Waits until so many requests are being answered; give it a thread."""
        wanted = re.compile(rf"^vllm:num_requests_running{{[^}}]*}} {count}\.0$", re.MULTILINE)
        for _ in range(_LOOKS):
            with urllib.request.urlopen(f"{self.url}/metrics", timeout=UP_S) as response:
                if wanted.search(response.read().decode()):
                    return
        raise AssertionError(f"never saw {count} requests running")

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=API_KEY, max_retries=0)

    def stop(self) -> None:
        """Stops it, and its engine with it."""
        self._process.terminate()
        try:
            self._process.wait(_DOWN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # A session of its own.
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _said(self, text: str) -> bool:
        return any(text in line for line in self._log)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._heard:
                self._log.append(line)
                self._heard.notify_all()
        with self._heard:
            self._is_over = True
            self._heard.notify_all()
