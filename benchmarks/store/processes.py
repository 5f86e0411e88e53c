"""Processes of the card store and inference nodes, started as production starts them."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.store import cards

_START_S = 120.0


class Process:
    """One `python -m MODULE`; its log tells when it listens, and on which port."""

    def __init__(self, module: str, config: pathlib.Path) -> None:
        """Starts it.

        Args:
            module: of the service.
            config: its config.yaml.
        """
        self.started = time.perf_counter()
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, "--config", str(config)],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.listens_after_s = 0.0
        self.port = 0
        self._log: list[str] = []
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def until_listening(self) -> Process:
        """Waits for its port.

        Raises:
            RuntimeError: it ended, or took too long.
        """
        if not self._listens.wait(_START_S) or not self.port:
            self.end()
            raise RuntimeError("a process did not start:\n" + "".join(self._log[-20:]))
        return self

    def end(self) -> None:
        """Stops it and waits."""
        self._popen.terminate()
        self._popen.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._popen.stderr is not None
        with self._popen.stderr as lines:
            for line in lines:
                self._log.append(line)
                if not self.port and (found := re.search(r'"port": (\d+)', line)):
                    self.listens_after_s = time.perf_counter() - self.started
                    self.port = int(found[1])
                    self._listens.set()
        self._listens.set()


class Store:
    """A card store of two processes in a folder of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Starts both.

        Args:
            folder: where the store keeps everything; what lies there is served.
        """
        config = write_config(folder, "store")
        self.control = Process("services.card_store", config).until_listening()
        self.data = Process("services.card_store.data_plane", config).until_listening()

    @property
    def address(self) -> str:
        """`host:port` of the control plane."""
        return f"127.0.0.1:{self.control.port}"

    @property
    def flight_address(self) -> str:
        """`host:port` of the data plane."""
        return f"127.0.0.1:{self.data.port}"

    def end(self) -> None:
        """Stops both."""
        self.control.end()
        self.data.end()


@contextlib.contextmanager
def store(folder: pathlib.Path) -> Iterator[Store]:
    """A running store."""
    opened = Store(folder)
    try:
        yield opened
    finally:
        opened.end()


@contextlib.contextmanager
def nodes(folder: pathlib.Path, count: int, store_address: str) -> Iterator[list[str]]:
    """Inference nodes of the embedded base that follow a store.

    Yields:
        Their addresses, once all of them listen.
    """
    started: list[Process] = []
    try:
        for number in range(count):
            config = write_config(
                folder / f"node-{number}", "node", discovery={"stores": [store_address]}
            )
            started.append(Process("services.inference", config))
        for process in started:
            process.until_listening()
        yield [f"127.0.0.1:{process.port}" for process in started]
    finally:
        for process in started:
            process.end()


def write_config(folder: pathlib.Path, name: str, **sections: dict[str, Any]) -> pathlib.Path:
    """A config.yaml on free ports without multicast; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    cards.SIGNER.publish(folder / "keyring")
    anywhere = "127.0.0.1:0"
    content: dict[str, Any] = {
        "cluster": {"state_dir": str(folder)},
        "card_store": {"address": anywhere, "flight_address": anywhere},
        "inference": {"address": anywhere},
        "telemetry": {"log_format": "json"},
    }
    content["discovery"] = {"zeroconf": False, **sections.pop("discovery", {})}
    content.update(sections)
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
