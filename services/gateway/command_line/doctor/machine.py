"""This machine: ports, the state folder, space, the clock, networks."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator

from services.gateway.cluster import programs, supervision
from services.gateway.command_line.doctor import findings, listeners
from shared import errors, multicast
from shared import settings as config

_LEAST_FREE, _LITTLE_FREE = 200 * 1000**2, 2 * 1000**3
"""Bytes: an error below the first, a warning below the second."""
_PROBE_BYTES = 64 * 1024
_AHEAD_S = 300.0

FreeBytes = Callable[[pathlib.Path], int]


def free_bytes(path: pathlib.Path) -> int:
    """Space that is left on the disk of a folder."""
    return shutil.disk_usage(path).free


def ports(settings: config.Settings) -> Iterator[findings.Finding]:
    """Whether each port is free, or held by the cluster's own process."""
    own = _own_pids(settings)
    held = 0
    chosen = programs.of(settings)
    keys: dict[str, str] = {}
    for program in chosen:
        for key, address in program.listening:
            if (other := keys.setdefault(address, key)) != key:
                yield findings.error(
                    "ports",
                    f"{other} and {key} are both {address}",
                    "give each service a port of its own in config.yaml",
                )
                continue
            port = int(address.rpartition(":")[2])
            holder = listeners.holder(port)
            if holder is None:
                try:
                    programs.check_port(key, address)
                except errors.ConfigError as trouble:
                    yield findings.error("ports", str(trouble), "see the message")
            elif holder.pid in own:
                held += 1
            else:
                who = f"process {holder.pid} ({holder.command})" if holder.pid else "another user"
                yield findings.error(
                    "ports",
                    f"{address} ({key}) is held by {who}, which is no part of this cluster",
                    f"stop it, or choose another port for {key} in config.yaml",
                )
    total = sum(len(program.listening) for program in chosen)
    running = f"the cluster holds {held} of its {total} ports"
    yield findings.ok("ports", running if own else f"{total} are needed; no cluster runs here")


def _own_pids(settings: config.Settings) -> set[int]:
    try:
        states = supervision.Supervisor(settings.cluster.state_dir.absolute()).processes()
    except errors.SkillmeshError:
        return set()
    return {state.pid for state in states if state.pid}


def state_folder(
    settings: config.Settings, free: FreeBytes = free_bytes
) -> Iterator[findings.Finding]:
    """Whether the state folder can be written, and how much space is left."""
    folder = settings.cluster.state_dir.absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
    except OSError as trouble:
        yield findings.error(
            "state folder",
            f"cluster.state_dir {folder} can't be written: {trouble.strerror}",
            "free space or give this user the right to write there, or name another folder",
        )
        return
    left = free(existing)
    text = f"{folder} can be written, {left / 1000**3:.1f} GB are left"
    remedy = "free some, or move cluster.state_dir; `store gc` removes files that no card needs"
    if left < _LEAST_FREE:
        yield findings.error("state folder", text, remedy)
    elif left < _LITTLE_FREE:
        yield findings.warning("state folder", text, remedy)
    else:
        yield findings.ok("state folder", text)


def clock(
    settings: config.Settings, now_s: Callable[[], float] = time.time
) -> Iterator[findings.Finding]:
    """Whether the clock may be right: nothing that was written lies ahead of it."""
    now = now_s()
    folder = settings.cluster.state_dir.absolute()
    written = [pathlib.Path(__file__).stat().st_mtime]
    for path in folder.glob("*"):
        with contextlib.suppress(OSError):
            written.append(path.stat().st_mtime)
    ahead = max(written) - now
    if ahead > _AHEAD_S:
        yield findings.error(
            "clock",
            f"files were written {ahead / 60:,.0f} minutes ahead of this machine's clock",
            "set the clock (certificates and budgets of a day go by it)",
        )
    else:
        yield findings.ok("clock", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now)))


def networks(
    settings: config.Settings, read: multicast.Addresses = multicast.addresses
) -> Iterator[findings.Finding]:
    """Whether the interfaces on which stores are looked for exist."""
    discovery = settings.discovery
    if not discovery.zeroconf:
        if discovery.stores:
            yield findings.ok("discovery", f"stores are named: {', '.join(discovery.stores)}")
        else:
            yield findings.warning(
                "discovery",
                "discovery.zeroconf is off and discovery.stores names none: router and nodes find "
                "no card store",
                "name card_store.address in discovery.stores, or switch zeroconf on",
            )
        return
    have = {address.ip for address in read()}
    if discovery.interfaces == "all":
        yield findings.ok("discovery", f"zeroconf on all interfaces: {', '.join(sorted(have))}")
        return
    if gone := [ip for ip in discovery.interfaces if ip not in have]:
        yield findings.error(
            "discovery",
            f"discovery.interfaces names {', '.join(gone)}, which this machine does not have (it "
            f"has {', '.join(sorted(have))})",
            "correct it in config.yaml",
        )
    else:
        yield findings.ok("discovery", f"zeroconf on {', '.join(discovery.interfaces)}")
