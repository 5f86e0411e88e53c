"""Has vLLM forget a name once it means another card, or none.

vLLM asks a resolver once for each name and keeps the answer. Without this, an alias that moved
would go on meaning the old version until vLLM restarts, and a revoked card would go on answering.
vLLM's own `/v1/unload_lora_adapter` makes it ask again; requests under way end as they began.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Protocol

from skillmesh_vllm import errors, store

_log = logging.getLogger("vllm.plugins.skillmesh")
_TIMEOUT_S = 10.0
_NOT_FOUND = 404


class Server(Protocol):
    """What keeps names; `VllmServer` is one."""

    def forget(self, name: str) -> None:
        """Has it ask again for a name; OSError where it can't be reached."""


class VllmServer:
    """The vLLM that this plugin runs in, by its public API."""

    def __init__(self, url: str, api_key: str) -> None:
        """Takes where it listens and the key that it asks for, if any."""
        self._url, self._api_key = url, api_key

    def forget(self, name: str) -> None:
        """Unloads an adapter by the name under which it was asked for.

        Raises:
            OSError: the server can't be reached, or refuses.
        """
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        request = urllib.request.Request(
            f"{self._url}/v1/unload_lora_adapter",
            json.dumps({"lora_name": name}).encode(),
            headers,
        )
        try:
            # A URL that whoever runs this vLLM has set, and no other.
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                response.read()
        except urllib.error.HTTPError as error:
            with error:
                # It waits for a name that is just being loaded: what it does not know now, it
                # does not keep.
                if error.code != _NOT_FOUND or b"cannot be found" not in error.read():
                    raise


class NameFollower:
    """Watches every name that was resolved, in a thread of its own."""

    def __init__(self, find: Callable[[str], store.Card], server: Server, every_s: float) -> None:
        """Takes the way to the store and the server that keeps the names."""
        self._find = find
        self._server = server
        self._every_s = every_s
        self._lock = threading.Lock()
        self._digests: dict[str, str] = {}
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def follow(self, name: str, digest: str) -> None:
        """Watches a name, which means this digest now."""
        with self._lock:
            self._digests[name] = digest
            # Not at the start: vLLM loads plugins in processes that never resolve anything.
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="skillmesh", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Ends the thread; blocks."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def check(self) -> None:
        """Asks the store about every name, and has those forgotten that mean another card."""
        with self._lock:
            known = dict(self._digests)
        for name, digest in known.items():
            try:
                now = self._find(name).digest
            except (errors.NotFoundError, errors.DamagedError):
                now = ""
            except errors.CardError as error:
                # A store that is away says nothing about any name.
                _log.warning("names of skill cards can't be checked: %s", error)
                return
            if now != digest:
                self._forget(name, digest)

    def forget_digest(self, digest: str) -> bool:
        """Has every name forgotten that means this digest; whether none is left that does."""
        with self._lock:
            names = [name for name, meant in self._digests.items() if meant == digest]
        for name in names:
            self._forget(name, digest)
        with self._lock:
            return digest not in self._digests.values()

    def _forget(self, name: str, digest: str) -> None:
        try:
            self._server.forget(name)
        except OSError as error:
            _log.error(
                "%s no longer means %s, but vLLM can't be told: %s; set SKILLMESH_VLLM_URL to "
                "where it listens",
                name,
                digest[:12],
                error,
            )
            return
        _log.info("%s no longer means %s: vLLM will ask again", name, digest[:12])
        with self._lock:
            # Resolved again meanwhile, it means something else.
            if self._digests.get(name) == digest:
                del self._digests[name]

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self.check()
            except Exception:
                # The next round may do better; without this thread names would stay for ever.
                _log.exception("names of skill cards can't be checked")
