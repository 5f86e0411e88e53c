"""Finds card stores: zeroconf (`_skillmesh._tcp.local.`) and a static list.

A hint, not liveness: a store that crashed stays listed for minutes. Health checks and Watch tell
who lives.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import uuid

import zeroconf
import zeroconf.asyncio

from shared import settings as config

SERVICE_TYPE = "_skillmesh._tcp.local."
_LOOKUP_MS = 1500


@dataclasses.dataclass(frozen=True)
class StoreAddress:
    """Where one store listens."""

    store_id: str
    control: str
    """`host:port` of the gRPC control plane."""


class Announcer:
    """Announces one store until closed."""

    def __init__(self, settings: config.Settings, store_id: str, port: int, version: str) -> None:
        """Takes the store's identity and the port of its control plane."""
        self._settings = settings
        host = settings.card_store.address.rpartition(":")[0]
        unique = f"{store_id}-{uuid.uuid4().hex[:6]}"
        self._info = zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"{unique}.{SERVICE_TYPE}",
            addresses=[socket.inet_aton(socket.gethostbyname(host))],
            port=port,
            server=f"{unique}.local.",
            properties={"id": store_id, "cluster": settings.cluster.name, "version": version},
        )
        self._zeroconf: zeroconf.asyncio.AsyncZeroconf | None = None

    async def start(self) -> None:
        """Starts announcing; does nothing where zeroconf is switched off."""
        if self._settings.discovery.zeroconf:
            self._zeroconf = _open(self._settings)
            await self._zeroconf.async_register_service(self._info)

    async def stop(self) -> None:
        """Says goodbye."""
        if self._zeroconf is not None:
            await self._zeroconf.async_unregister_service(self._info)
            await self._zeroconf.async_close()


async def find_stores(settings: config.Settings, wait_s: float = 2.0) -> list[StoreAddress]:
    """Stores of this cluster: the static list, else what zeroconf hears, else the default.

    Args:
        settings: names the cluster, the static list and the interfaces.
        wait_s: how long to listen; returns with the first store heard.
    """
    static = [StoreAddress(address, address) for address in settings.discovery.stores]
    if static:
        return static
    heard = await _browse(settings, wait_s) if settings.discovery.zeroconf else []
    # One machine without multicast is the commonest failure of zeroconf: the store that this very
    # configuration would start is worth a try.
    own = settings.card_store.address
    return heard or [StoreAddress(own, own)]


async def _browse(settings: config.Settings, wait_s: float) -> list[StoreAddress]:
    found: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def on_change(
        zeroconf: zeroconf.Zeroconf,
        service_type: str,
        name: str,
        state_change: zeroconf.ServiceStateChange,
    ) -> None:
        if state_change.name == "Added":
            loop.call_soon_threadsafe(found.put_nowait, name)

    opened = _open(settings)
    browser = zeroconf.asyncio.AsyncServiceBrowser(
        opened.zeroconf, SERVICE_TYPE, handlers=[on_change]
    )
    try:
        async with asyncio.timeout(wait_s):
            while True:
                store = await _resolve(opened, await found.get(), settings.cluster.name)
                if store is not None:
                    return [store]
    except TimeoutError:
        return []
    finally:
        await browser.async_cancel()
        await opened.async_close()


async def _resolve(
    opened: zeroconf.asyncio.AsyncZeroconf, name: str, cluster: str
) -> StoreAddress | None:
    info = zeroconf.asyncio.AsyncServiceInfo(SERVICE_TYPE, name)
    if not await info.async_request(opened.zeroconf, _LOOKUP_MS):
        return None
    properties = info.decoded_properties
    if properties.get("cluster") != cluster or not info.parsed_addresses():
        return None
    control = f"{info.parsed_addresses()[0]}:{info.port}"
    return StoreAddress(str(properties.get("id")), control)


def _open(settings: config.Settings) -> zeroconf.asyncio.AsyncZeroconf:
    return zeroconf.asyncio.AsyncZeroconf(
        interfaces=list(settings.discovery.interfaces), ip_version=zeroconf.IPVersion.V4Only
    )
