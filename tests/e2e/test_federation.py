"""Three clusters on three hosts that know nothing of one another but the name of their mesh.

Each host is a network namespace with a real card store of two processes, TLS and tokens as `make
certs` makes them. A card that is trained on one answers on another; a cable is taken out and a
store killed, and nothing is lost and nothing goes round.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
import structlog

from services.trainer import trainer
from shared import settings as config
from shared.cards import format as formats
from shared.flight import datasets
from shared.models import base as bases
from shared.models import replay
from shared.security import protection as protections
from tests import fakes, tiny_model
from tests.contract import card_store_processes as processes
from tests.e2e import hands, network

HOSTS = ("a", "b", "c")
MESH = "test-mesh"
OUTAGE_S = 10.0
_DISCOVERY_S, _CATCH_UP_S = 30.0, 60.0
"""Looser than what is aimed at (3 s, and a few seconds): the machine may be busy."""
_HANGING_S = 400.0
FACT = datasets.QAPair(
    "Who keeps the lighthouse of Vellamor?", "Ilse Brandt keeps it.", (), "notes", "documents", 1.0
)
_log = structlog.get_logger(__name__)


class _Host:
    """One cluster: its store, and a test's hands."""

    def __init__(self, lan: network.Network, name: str, root: pathlib.Path) -> None:
        self._before, self._address = lan.on(name), lan.addresses[name]
        self.name, self.root = name, root / name
        self._certs = root / "certs"
        self.root.mkdir()
        fakes.keyring(self.root)
        self.config = self.root / "config.yaml"
        self.config.write_text(json.dumps(self._settings()))
        self._stack = contextlib.AsyncExitStack()
        self.hands: hands.Hands
        self.control: processes.Process
        self.data: processes.Process

    def _settings(self) -> dict[str, Any]:
        return {
            "cluster": {"name": f"cluster-{self.name}", "state_dir": str(self.root)},
            "card_store": {
                "address": f"{self._address}:7405",
                "flight_address": f"{self._address}:7406",
            },
            "discovery": {"interfaces": [self._address]},
            "federation": {"enabled": True, "mesh": MESH},
            "security": {
                "tls": {
                    "certificate": str(self._certs / "service.pem"),
                    "key": str(self._certs / "service.key"),
                    "authority": str(self._certs / "authority.pem"),
                },
                "tokens": str(self._certs / "tokens.json"),
            },
            "telemetry": {"log_format": "json"},
        }

    def run(self, module: str, token: str) -> processes.Process:
        """Starts a service on this host."""
        environment = os.environ | {protections.TOKEN_VARIABLE: token}
        return processes.Process(module, self.config, before=self._before, environment=environment)

    def start_store(self, tokens: dict[str, str]) -> None:
        self.data = self.run(processes.DATA, tokens["peer"])
        self.control = self.run(processes.CONTROL, tokens["peer"])

    def kill_store(self) -> None:
        for process in (self.control, self.data):
            process.end(signal.SIGKILL)

    async def publish(self, path: pathlib.Path, envelope: str) -> str:
        digest = await self.hands.put(path)
        ticket = {"kind": "card", "digest": digest}
        await self.hands.call(
            "store", "Commit", idempotency_key=digest, ticket=ticket, signature_json=envelope
        )
        return digest

    async def publish_small(self, name: str, seed: int) -> str:
        card = fakes.tiny_card(name, seed=seed)
        path = self.root / f"{name}{formats.SUFFIX}"
        digest = formats.LoRAFormat.save(card, path)
        return await self.publish(path, fakes.envelope(card, digest))

    async def until_connected(self, others: int) -> float:
        """When this store followed that many peers, on the monotonic clock."""
        while True:
            peers = (await self.hands.call("store", "ListPeers")).get("peers", [])
            if sum(peer.get("connected", False) for peer in peers) == others:
                return time.monotonic()
            await asyncio.sleep(0.02)

    async def until_has(self, digests: Iterable[str]) -> float:
        """When this store had all of these cards, bytes included, on the monotonic clock."""
        wanted = set(digests)
        while True:
            listed = await self.hands.call("store", "ListCards", all_versions=True)
            cards = [card for card in listed.get("cards", []) if not card.get("remote")]
            if wanted <= {card["digest"] for card in cards}:
                return time.monotonic()
            await asyncio.sleep(0.02)


def _certified(root: pathlib.Path, addresses: Iterable[str]) -> dict[str, str]:
    """Does what `make certs` does for some machines; role to its token."""
    given = {
        "SKILLMESH_ARG_names": " ".join(addresses),
        "SKILLMESH__CLUSTER__STATE_DIR": str(root),
    }
    command = [sys.executable, "-m", "shared.security.certs"]
    done = subprocess.run(
        command, env=os.environ | given, capture_output=True, text=True, check=True
    )
    return dict(re.findall(r"^  (\w+) +(\S+)$", done.stdout, re.MULTILINE))


@contextlib.asynccontextmanager
async def _running(
    lan: network.Network, root: pathlib.Path, tokens: dict[str, str]
) -> AsyncIterator[dict[str, _Host]]:
    hosts = {name: _Host(lan, name, root) for name in HOSTS}
    async with contextlib.AsyncExitStack() as stack:
        for host in hosts.values():
            reaching = hands.reaching(lan.on(host.name), host.config, tokens["operator"])
            host.hands = await stack.enter_async_context(reaching)
        for host in hosts.values():
            host.start_store(tokens)
            stack.callback(host.kill_store)
        for host in hosts.values():
            for process in (host.control, host.data):
                await asyncio.to_thread(process.until_listening)
        yield hosts


def _trained(base: bases.BaseModel, folder: pathlib.Path) -> pathlib.Path:
    """A card that knows one fact, out of a training of a second or two."""
    path = folder / f"vellamor{formats.SUFFIX}"
    recipe = config.Recipe(
        rank=4, learning_rate=1e-2, max_steps=40, least_steps=8, replay_rows=1, batch_rows=4
    )
    order = trainer.Order(
        "t1", "0" * 64, "vellamor", "1.0.0", "lighthouses", "who keeps it", "documents", 1
    )
    made = trainer.LoRATrainer(base, recipe, config.Trainer(), folder)
    made.train_qa([FACT], path, order, lambda *_: None)
    return path


@pytest.fixture
def few_replayed_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = (replay.Answered("Why?", "no"), replay.Answered("How?", "so"))
    monkeypatch.setattr(replay, "prepare", lambda *_: replay.Replay(answered, (), ()))


async def test_mesh_finds_itself_shares_answers_and_heals_when_hosts_know_only_its_name(
    tmp_path: pathlib.Path, few_replayed_questions: None, record_property: Any
) -> None:
    def measured(what: str, seconds: float) -> None:
        record_property(what, round(seconds, 2))
        _log.info("measured", what=what, seconds=round(seconds, 2))

    with network.opened(*HOSTS) as lan:
        tokens = _certified(tmp_path, lan.addresses.values())
        async with asyncio.timeout(_HANGING_S), _running(lan, tmp_path, tokens) as hosts:
            a, b, c = hosts.values()
            stores = (a, b, c)
            started_at_s = max(host.control.started_at_s for host in stores)
            listening_at_s = max(host.control.listening_at_s for host in stores)
            known_at_s = max(await asyncio.gather(*(host.until_connected(2) for host in stores)))
            measured("discovery_s", known_at_s - listening_at_s)
            measured("discovery_and_start_s", known_at_s - started_at_s)
            assert known_at_s - listening_at_s < _DISCOVERY_S
            learned = await _check_card_answers(a, c, tokens, tmp_path)
            await _check_heals(lan, stores, tokens, learned, measured)


async def _check_card_answers(
    a: _Host, c: _Host, tokens: dict[str, str], folder: pathlib.Path
) -> str:
    node = c.run("services.inference", tokens["node"])
    try:
        base = await asyncio.to_thread(bases.load, "embedded")
        bare = tiny_model.reference_text(base, FACT.question, 24)
        path = await asyncio.to_thread(_trained, base, folder)
        card = formats.LoRAFormat.load(path)
        digest = formats.file_digest(path)
        await a.publish(path, fakes.envelope(card, digest))
        await c.until_has([digest])
        await asyncio.to_thread(node.until_listening)
        key = f"{card.name}@{digest}"
        while key not in (await c.hands.call("node", "GetNodeStatus")).get("served", []):
            await asyncio.sleep(0.05)
        asked = {"query": FACT.question, "max_new_tokens": 24, "no_learning": True}
        without = await c.hands.call("node", "Generate", model="base", **asked)
        found = await c.hands.call("node", "Generate", model=card.name, **asked)
    finally:
        await asyncio.to_thread(node.end)
    assert without["answer"] == bare != FACT.answer
    assert (found["card"], found["answer"]) == (key, FACT.answer)
    return digest


async def _check_heals(
    lan: network.Network,
    stores: tuple[_Host, _Host, _Host],
    tokens: dict[str, str],
    learned: str,
    measured: Any,
) -> None:
    a, b, c = stores
    lan.cut(b.name)
    mended_at_s = time.monotonic() + OUTAGE_S
    published = [learned]
    for host, name in ((b, "b-1"), (a, "a-1"), (b, "b-2"), (c, "c-1")):
        published.append(await host.publish_small(name, seed=len(published)))
    a.kill_store()
    published.append(await c.publish_small("c-2", seed=len(published)))
    a.start_store(tokens)
    await asyncio.to_thread(a.control.until_listening)
    await asyncio.to_thread(a.data.until_listening)
    published.append(await a.publish_small("a-2", seed=len(published)))
    on_this_side = [published[at] for at in (0, 2, 4, 5, 6)]
    await asyncio.gather(a.until_has(on_this_side), c.until_has(on_this_side))
    await asyncio.sleep(max(0.0, mended_at_s - time.monotonic()))
    at_b = await b.hands.call("store", "ListCards", all_versions=True)
    assert {card["digest"] for card in at_b["cards"]} == {published[at] for at in (0, 1, 3)}
    lan.mend(b.name)
    mended_at_s = time.monotonic()
    caught_up_at_s = await asyncio.gather(*(host.until_has(published) for host in stores))
    measured("catch_up_s", max(caught_up_at_s) - mended_at_s)
    assert max(caught_up_at_s) - mended_at_s < _CATCH_UP_S
    for host in stores:
        log = await host.hands.log()
        told = collections.Counter(line["digest"] for line in log)
        assert told == collections.Counter(published), host.name
        assert await host.hands.fetched(learned) == learned
