"""`up`, `down`, `status` and `logs` of the local cluster."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable
from typing import Any

import rich.table

from services.gateway.calls import peers
from services.gateway.cluster import cluster, supervision, urls
from services.gateway.command_line import following
from shared import costs, errors, terminal
from shared import settings as config


def started(local: cluster.Cluster) -> bool:
    """Starts a cluster and shows how far it is; false where it ran already."""
    with following.Bars() as bars:

        def show(well: int, total: int, missing: str) -> None:
            stage = f"{well} of {total} services answer"
            bars.show("starting", well / total, stage, f"waiting for {missing}" if missing else "")

        return local.start(show)


def up(as_json: bool) -> None:
    """Starts the cluster and waits until every service answers."""
    local = cluster.Cluster(config.load())
    is_new = started(local)
    if as_json:
        told = {
            "started": is_new,
            "state_dir": str(local.state_dir),
            "knowledge_dir": str(local.settings.distiller.knowledge_dir),
            "addresses": local.addresses,
        }
        terminal.print_json(told)
        return
    say = terminal.RESULT.print
    say("The cluster is up." if is_new else "The cluster was up already.", style="bold")
    say(terminal.escape(f"state and logs: {local.state_dir}"))
    say(terminal.escape(f"knowledge:      {local.settings.distiller.knowledge_dir}"))
    for name, address in local.addresses.items():
        say(f"  {name:<16} {address}")
    for name, url in urls.addresses(local.settings):
        say(f"{name + ':':<15} {url}")
    say('Try: make ask q="What is a skill card?" wait=1')


def down(as_json: bool) -> None:
    """Stops the cluster."""
    local = cluster.Cluster(config.load())
    if local.supervisor.alive():
        terminal.NOTES.print("stopping: services end what they are doing")
    stopped = local.stop()
    if as_json:
        terminal.print_json({"stopped": stopped})
        return
    terminal.RESULT.print("The cluster is down." if stopped else "No cluster was running.")


def status(as_json: bool) -> None:
    """Prints the state of every process, of the store and of the node.

    Raises:
        errors.UnavailableError: no cluster is running.
        terminal.FailedError: a service does not answer.
    """
    settings = config.load()
    local = cluster.Cluster(settings)
    try:
        processes = local.supervisor.processes()
    except errors.UnavailableError:
        if as_json:
            terminal.print_json(
                {"running": False, "cluster": settings.cluster.name, "processes": []}
            )
        raise
    found: dict[str, Any] = {"running": True, "cluster": settings.cluster.name}
    found |= asyncio.run(_contents(settings))
    healthy, addresses = local.healthy(), local.addresses
    found["processes"] = [
        {
            **dataclasses.asdict(process),
            "healthy": process.name in healthy,
            "address": addresses.get(process.name, ""),
        }
        for process in processes
    ]
    if as_json:
        terminal.print_json(found)
    else:
        _show(found)
    if silent := sorted(set(addresses) - healthy):
        raise terminal.FailedError(f"no answer from {', '.join(silent)}: see `make logs`")


def logs(service: str, lines: int, as_json: bool) -> None:
    """Prints the end of the logs.

    Args:
        service: of one process; empty for all.
        lines: how many of each.
        as_json: print one JSON list.

    Raises:
        terminal.UsageError: no process has that name.
        errors.NotFoundError: there are no logs yet.
    """
    local = cluster.Cluster(config.load())
    names = list(local.addresses)
    if service and service not in names:
        raise terminal.UsageError(f"service {service!r}: choose one of {', '.join(names)}")
    paths = {name: local.supervisor.log(name) for name in ([service] if service else names)}
    ends = {name: supervision.tail(path, lines) for name, path in paths.items() if path.is_file()}
    if not ends:
        raise errors.NotFoundError(f"no logs in {local.state_dir}: start it with `make up`")
    if as_json:
        terminal.print_json(
            [
                {"service": name, "path": str(paths[name]), "lines": end.splitlines()}
                for name, end in ends.items()
            ]
        )
        return
    for name, end in ends.items():
        terminal.RESULT.rule(terminal.escape(str(paths[name])), align="left")
        # Not through rich: log lines are printed as they are.
        terminal.RESULT.out(end)


async def _contents(settings: config.Settings) -> dict[str, Any]:
    """What store, node, distiller and hierarchy say; nothing of one that does not answer."""
    async with peers.connected(settings) as services:
        asked: dict[str, Awaitable[Any]] = {
            "store": services.store.status(),
            "node": services.inference.status(),
            "teachers": services.distiller.teachers(),
        }
        if settings.hierarchy.enabled:
            asked["hierarchy"] = services.hierarchy.status()
        answers = await asyncio.gather(*asked.values(), return_exceptions=True)
    told: dict[str, Any] = {}
    for name, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, BaseException):
            told[name] = dataclasses.asdict(answer)
        elif not isinstance(answer, errors.SkillmeshError):
            raise answer
    store = told.pop("store", {"revision": None, "cards": None})
    if "size_bytes" in store:
        store["card_bytes"] = store.pop("size_bytes")
    return {**store, "node": None, "teachers": None, "hierarchy": None, **told}


def _show(found: dict[str, Any]) -> None:
    table = rich.table.Table("process", "state", "pid", "uptime", "answers", "address")
    for process in found["processes"]:
        table.add_row(
            process["name"],
            process["state"],
            str(process["pid"] or "-"),
            f"{process['uptime_s']:.0f} s",
            "yes" if process["healthy"] else "no",
            process["address"],
        )
    terminal.RESULT.print(table)
    if found["revision"] is not None:
        stored = terminal.size(found["card_bytes"])
        terminal.RESULT.print(
            f"store: {found['cards']} cards, revision {found['revision']}, {stored}"
        )
    if found["node"] is not None:
        node = found["node"]
        served = ", ".join(card.partition("@")[0] for card in node["served"]) or "none"
        terminal.RESULT.print(
            terminal.escape(
                f"inference: base {node['base_model']}, follows revision {node['revision']}, "
                f"{len(node['resident'])} of {len(node['served'])} cards in memory: {served}"
            )
        )
    if found["hierarchy"] is not None:
        layers = found["hierarchy"]
        frozen = f", frozen: {', '.join(layers['frozen'])}" if layers["frozen"] else ""
        terminal.RESULT.print(
            terminal.escape(
                f"hierarchy: version {layers['version']} after {layers['tick']} ticks, "
                f"{layers['agents']} agents, {layers['waiting']} submissions wait, "
                f"{layers['verdict']}{frozen}"
            )
        )
    if found["teachers"] is not None:
        show_teachers(found["teachers"])


def show_teachers(teachers: dict[str, Any]) -> None:
    """Prints who teaches or is left alone, and what that cost today.

    Args:
        teachers: fields of `domain.Teachers`.
    """
    for teacher in teachers["chain"]:
        about = "is asked"
        if teacher["circuit"] != "closed":
            pause = f"is left alone for {teacher['open_for_s']:.0f} s"
            about = pause if teacher["open_for_s"] else "is tried by the next question"
            about += f": {teacher['reason']}"
        terminal.RESULT.print(terminal.escape(f"teacher: {teacher['name']} {about}"))
    spent = str(costs.Spent(**teachers["today"]))
    if spent:
        terminal.RESULT.print(f"teachers today: {spent}")
