"""Finds card stores: zeroconf (`_skillmesh._tcp.local.`) and a static list.

A hint, not liveness: a store that crashed stays listed for minutes. Health checks and Watch tell
who lives. Nodes look once for a store of their own cluster (`find_stores`); stores keep looking
for those of their mesh (`browsing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import structlog
import zeroconf
import zeroconf.asyncio

from shared import multicast
from shared import settings as config

SERVICE_TYPE = "_skillmesh._tcp.local."
_LOOKUP_MS = 1500
_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True)
class StoreAddress:
    """Where one store listens."""

    store_id: str
    control: str
    """`host:port` of the gRPC control plane."""
    cluster: str = ""
    """The cluster that it belongs to; empty where only its address is known."""
    mesh: str = ""
    """The federation that it takes part in; empty for none."""


class Announcer:
    """Announces one store until closed."""

    def __init__(
        self,
        settings: config.Settings,
        store_id: str,
        port: int,
        version: str,
        flight_port: int = 0,
        poll_s: float = multicast.POLL_S,
    ) -> None:
        """Takes what is announced: the store's identity, version and ports.

        Args:
            settings: cluster and mesh, the address that the store listens on, the interfaces.
            store_id: the store's identity.
            port: of its control plane.
            version: of its protocol.
            flight_port: of its data plane.
            poll_s: how often this machine's addresses are looked at.
        """
        self._settings = settings
        self._poll_s = poll_s
        self._host = settings.card_store.address.rpartition(":")[0]
        self._store_id, self._port = store_id, port
        self._properties = {
            "id": store_id,
            "cluster": settings.cluster.name,
            "mesh": settings.federation.mesh if settings.federation.enabled else "",
            "version": version,
            "flight": str(flight_port),
        }
        # A store that was killed is still known by its name: the next one needs another.
        self._unique = f"{store_id}-{uuid.uuid4().hex[:6]}"
        self._stack = contextlib.AsyncExitStack()
        self._updates: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Starts announcing; does nothing where zeroconf is switched off.

        Raises:
            OSError: there is no network, or no such interface.
            zeroconf.Error: it could not be announced.
        """
        if not self._settings.discovery.zeroconf:
            return
        async with contextlib.AsyncExitStack() as stack:
            opened = await stack.enter_async_context(
                multicast.opened(
                    self._settings.discovery.interfaces,
                    lambda addresses: self._readdress(opened, addresses),
                    self._poll_s,
                    multicast.addresses,
                )
            )
            info = self._info(multicast.addresses())
            await opened.async_register_service(info)
            stack.push_async_callback(self._say_goodbye, opened)
            # Only now: whatever interrupts the lines above has closed everything again.
            self._stack = stack.pop_all()

    async def stop(self) -> None:
        """Says goodbye."""
        for update in self._updates:
            update.cancel()
        await asyncio.gather(*self._updates, return_exceptions=True)
        await self._stack.aclose()

    async def _say_goodbye(self, opened: zeroconf.asyncio.AsyncZeroconf) -> None:
        sent = await opened.async_unregister_service(self._info(multicast.addresses()))
        await sent

    def _readdress(
        self, opened: zeroconf.asyncio.AsyncZeroconf, addresses: frozenset[multicast.Address]
    ) -> None:
        async def update() -> None:
            await (await opened.async_update_service(self._info(addresses)))

        self._updates.add(task := asyncio.create_task(update()))
        task.add_done_callback(self._updates.discard)

    def _info(self, addresses: frozenset[multicast.Address]) -> zeroconf.ServiceInfo:
        return zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"{self._unique}.{SERVICE_TYPE}",
            addresses=[socket.inet_aton(one) for one in _announced(self._host, addresses)],
            port=self._port,
            server=f"{self._unique}.local.",
            properties=self._properties,
        )


class StoreBrowser:
    """The stores that zeroconf hears of now; see `browsing`."""

    def __init__(
        self,
        opened: zeroconf.asyncio.AsyncZeroconf,
        accepts: Callable[[StoreAddress], bool],
        read_addresses: multicast.Addresses = multicast.addresses,
    ) -> None:
        """Takes an open zeroconf and which stores are of interest."""
        self._opened, self._accepts, self._read_addresses = opened, accepts, read_addresses
        self._found: dict[str, StoreAddress] = {}
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._browser: zeroconf.asyncio.AsyncServiceBrowser | None = None

    def start(self) -> None:
        """Begins to listen."""
        self._browser = zeroconf.asyncio.AsyncServiceBrowser(
            self._opened.zeroconf, SERVICE_TYPE, handlers=[self._on_change]
        )

    async def stop(self) -> None:
        """Stops listening."""
        for lookup in self._lookups.values():
            lookup.cancel()
        await asyncio.gather(*self._lookups.values(), return_exceptions=True)
        if self._browser is not None:
            await self._browser.async_cancel()

    def stores(self) -> list[StoreAddress]:
        """Those that are announced now, in the order of their coming."""
        return list(self._found.values())

    async def changed(self) -> None:
        """Returns once `stores` may be another list than at the last return."""
        await self._news.wait()
        self._news.clear()

    def _on_change(
        self,
        zeroconf: zeroconf.Zeroconf,
        service_type: str,
        name: str,
        state_change: zeroconf.ServiceStateChange,
    ) -> None:
        self._loop.call_soon_threadsafe(self._heard, name, state_change.name == "Removed")

    def _heard(self, name: str, is_gone: bool) -> None:
        # A later word about a name makes an earlier one void.
        if (lookup := self._lookups.pop(name, None)) is not None:
            lookup.cancel()
        if is_gone:
            if self._found.pop(name, None) is not None:
                self._news.set()
            return
        self._lookups[name] = asyncio.create_task(self._look_up(name))

    async def _look_up(self, name: str) -> None:
        info = zeroconf.asyncio.AsyncServiceInfo(SERVICE_TYPE, name)
        try:
            is_known = await info.async_request(self._opened.zeroconf, _LOOKUP_MS)
        except (OSError, zeroconf.Error) as error:
            _log.info("store not resolved", service=name, reason=str(error))
            return
        store = _store(info, self._read_addresses()) if is_known else None
        if store is not None and self._accepts(store) and self._found.get(name) != store:
            self._found[name] = store
            self._news.set()


@contextlib.asynccontextmanager
async def browsing(
    settings: config.Settings, accepts: Callable[[StoreAddress], bool]
) -> AsyncIterator[StoreBrowser]:
    """Listens for stores until left.

    Args:
        settings: says on which interfaces.
        accepts: which stores are of interest.

    Raises:
        OSError: there is no network, or no such interface.
        zeroconf.Error: zeroconf does not start.
    """
    async with multicast.opened(settings.discovery.interfaces) as opened:
        browser = StoreBrowser(opened, accepts)
        browser.start()
        try:
            yield browser
        finally:
            await browser.stop()


async def find_stores(settings: config.Settings, wait_s: float = 2.0) -> list[StoreAddress]:
    """Stores of this cluster: the static list, else what zeroconf hears, else the default.

    Args:
        settings: names the cluster, the static list and the interfaces.
        wait_s: how long to listen; returns with the first store heard.
    """
    static = [StoreAddress(address, address) for address in settings.discovery.stores]
    if static:
        return static
    heard = await _first_heard(settings, wait_s) if settings.discovery.zeroconf else []
    # One machine without multicast is the commonest failure of zeroconf: the store that this very
    # configuration would start is worth a try.
    own = settings.card_store.address
    return heard or [StoreAddress(own, own)]


def reachable(announced: str, control: str) -> str:
    """Where the data plane of a store is that says of itself that it listens everywhere.

    Args:
        announced: `host:port` as the store tells it.
        control: `host:port` under which the store itself was reached.
    """
    host, _, port = announced.rpartition(":")
    return f"{control.rpartition(':')[0]}:{port}" if _is_everywhere(host) else announced


def outer_hosts(host: str, own: frozenset[multicast.Address]) -> Sequence[str]:
    """The names under which others reach a server.

    Args:
        host: where it listens.
        own: this machine's addresses, for one that listens on all of them.
    """
    if not _is_everywhere(host):
        return [host]
    outer = sorted(address.ip for address in own if not address.is_loopback)
    return outer or ["127.0.0.1"]


async def _first_heard(settings: config.Settings, wait_s: float) -> list[StoreAddress]:
    try:
        # Another cluster's store would give this one's nodes cards of strangers.
        async with (
            asyncio.timeout(wait_s),
            browsing(settings, lambda store: store.cluster == settings.cluster.name) as browser,
        ):
            await browser.changed()
            return browser.stores()
    except TimeoutError:
        return []


def _store(
    info: zeroconf.asyncio.AsyncServiceInfo, own: frozenset[multicast.Address]
) -> StoreAddress | None:
    told = info.parsed_addresses(zeroconf.IPVersion.V4Only)
    if not told or not info.port:
        return None
    texts = {key: value or "" for key, value in info.decoded_properties.items()}
    return StoreAddress(
        store_id=texts.get("id", ""),
        control=f"{multicast.nearest(told, own)}:{info.port}",
        cluster=texts.get("cluster", ""),
        mesh=texts.get("mesh", ""),
    )


def _announced(host: str, own: frozenset[multicast.Address]) -> Sequence[str]:
    """The addresses under which others reach a server that listens on a host."""
    return [socket.gethostbyname(name) for name in outer_hosts(host, own)]


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
