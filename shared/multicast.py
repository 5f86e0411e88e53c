"""Multicast DNS on this machine's interfaces: opened, kept with its addresses, and always closed.

Wraps `AsyncZeroconf`. Knows nothing about card stores; see `shared.discovery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal

import ifaddr
import structlog
import zeroconf
import zeroconf.asyncio

Interfaces = Literal["all"] | tuple[str, ...]
"""`all`, or the addresses of some."""
POLL_S = 2.0
"""How often addresses are looked at: a laptop that changes networks is found again this soon."""
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class Address:
    """One IPv4 address of this machine."""

    ip: str
    prefix: int
    """Bits of its network."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.ip).is_loopback

    def reaches(self, other: str) -> bool:
        """Whether another address lies in the same network."""
        network = ipaddress.ip_network(f"{self.ip}/{self.prefix}", strict=False)
        return ipaddress.ip_address(other) in network


Addresses = Callable[[], frozenset[Address]]
"""Reads this machine's addresses."""


def addresses() -> frozenset[Address]:
    """The IPv4 addresses that this machine has now."""
    return frozenset(
        Address(str(found.ip), found.network_prefix)
        for adapter in ifaddr.get_adapters()
        for found in adapter.ips
        if found.is_IPv4
    )


@contextlib.asynccontextmanager
async def opened(
    interfaces: Interfaces,
    on_change: Callable[[frozenset[Address]], None] = lambda addresses: None,
    poll_s: float = POLL_S,
    read_addresses: Addresses = addresses,
) -> AsyncIterator[zeroconf.asyncio.AsyncZeroconf]:
    """Zeroconf on some interfaces, which follows them when their addresses change.

    Whatever ends it, cancellation while it starts included, its sockets are closed.

    Args:
        interfaces: where it listens and speaks.
        on_change: told this machine's addresses whenever they are others than before.
        poll_s: how often addresses are looked at.
        read_addresses: reads them.

    Raises:
        OSError: there is no such interface, or no network at all.
        zeroconf.Error: it does not start.
    """
    chosen = zeroconf.InterfaceChoice.All if interfaces == "all" else list(interfaces)
    # Without V4Only it would take addresses that services bound to IPv4 do not answer on.
    try:
        instance = zeroconf.asyncio.AsyncZeroconf(
            interfaces=chosen, ip_version=zeroconf.IPVersion.V4Only
        )
    except RuntimeError as error:  # No interface has an address yet.
        raise OSError(f"multicast DNS found no interface: {error}") from error
    following: asyncio.Task[None] | None = None
    try:
        # Shielded: it would take the cancellation for its own, and could not be closed any more.
        await asyncio.shield(asyncio.ensure_future(instance.zeroconf.async_wait_for_start()))
        following = asyncio.create_task(
            _follow(instance, read_addresses(), on_change, poll_s, read_addresses)
        )
        yield instance
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await _close(instance)


async def _close(instance: zeroconf.asyncio.AsyncZeroconf) -> None:
    try:
        await instance.async_close()
    except BaseException:
        # Its own tasks end with the loop, too, and then it gives up half way.
        instance.zeroconf.close()
        await asyncio.sleep(0)
        raise


async def _follow(
    instance: zeroconf.asyncio.AsyncZeroconf,
    known: frozenset[Address],
    on_change: Callable[[frozenset[Address]], None],
    poll_s: float,
    read_addresses: Addresses,
) -> None:
    while True:
        await asyncio.sleep(poll_s)
        try:
            found = read_addresses()
            if found == known:
                continue
            on_change(found)
            await instance.async_update_interfaces()
        except (OSError, zeroconf.Error) as error:
            _log.warning("multicast DNS can't follow the interfaces", reason=str(error))
            continue
        _log.info("addresses changed", addresses=sorted(address.ip for address in found))
        known = found


def nearest(candidates: Iterable[str], own: Iterable[Address]) -> str:
    """Of several addresses of another machine, the one in a network that this machine is in.

    Args:
        candidates: at least one.
        own: this machine's addresses.
    """
    listed, networks = list(candidates), list(own)
    # Loopback last: every machine has it, and only on this one it leads to the other process.
    outer = [address for address in networks if not address.is_loopback]
    for address in (*outer, *(address for address in networks if address.is_loopback)):
        for candidate in listed:
            if address.reaches(candidate):
                return candidate
    return listed[0]
