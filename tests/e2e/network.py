"""Hosts of a network of their own: Linux network namespaces on one bridge.

The bridge lies in a namespace, too: the machine's own interfaces, routes and addresses are not
touched, and the same addresses do for every run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Sequence

import pytest

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


class Network:
    """Some hosts that reach one another; see `opened`."""

    def __init__(self, ip: str, prefix: str, hosts: Sequence[str]) -> None:
        self._ip, self._switch = ip, f"{prefix}-switch"
        self._prefix = prefix
        self.addresses = {name: f"10.77.0.{at}" for at, name in enumerate(hosts, 2)}

    def make(self) -> None:
        try:
            self._run("netns", "add", self._switch)
            self._on(self._switch, "link", "add", "name", "bridge", "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")
        self._on(self._switch, "link", "set", "dev", "bridge", "up")
        for host, address in self.addresses.items():
            namespace = self._namespace(host)
            self._run("netns", "add", namespace)
            there = ("peer", "name", "eth", "netns", namespace)
            self._on(self._switch, "link", "add", "name", host, "type", "veth", *there)
            self._on(self._switch, "link", "set", "dev", host, "master", "bridge", "up")
            self._on(namespace, "address", "add", f"{address}/24", "dev", "eth")
            self._on(namespace, "link", "set", "dev", "eth", "up")
            self._on(namespace, "link", "set", "dev", "lo", "up")

    def remove(self) -> None:
        for namespace in (*map(self._namespace, self.addresses), self._switch):
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run("netns", "delete", namespace)

    def cut(self, host: str) -> None:
        """Takes a host's cable out at the switch."""
        self._on(self._switch, "link", "set", "dev", host, "down")

    def mend(self, host: str) -> None:
        self._on(self._switch, "link", "set", "dev", host, "up")

    def readdress(self, host: str, address: str) -> None:
        """Gives a host another address instead of the one that it has."""
        eth = ("dev", "eth")
        self._on(self._namespace(host), "address", "add", f"{address}/24", *eth)
        self._on(self._namespace(host), "address", "delete", f"{self.addresses[host]}/24", *eth)
        self.addresses[host] = address

    def on(self, host: str) -> tuple[str, ...]:
        """What to put before a command so that it runs on a host."""
        return (self._ip, "netns", "exec", self._namespace(host))

    def _namespace(self, host: str) -> str:
        return f"{self._prefix}-{host}"

    def _on(self, namespace: str, *command: str) -> None:
        self._run("-n", namespace, *command)

    def _run(self, *command: str) -> None:
        subprocess.run([self._ip, *command], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def opened(*hosts: str) -> Iterator[Network]:
    """A network until it is left; skips the test where this machine does not allow one."""
    ip = shutil.which("ip", path=_PATH)
    if ip is None:
        pytest.skip("there is no `ip` command here (iproute2), which makes hosts")
    network = Network(ip, f"skillmesh-{os.getpid()}-{uuid.uuid4().hex[:4]}", hosts)
    try:
        network.make()
        yield network
    finally:
        network.remove()
