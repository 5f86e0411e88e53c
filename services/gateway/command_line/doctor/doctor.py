"""`doctor`: all checks, and how they are told."""

from __future__ import annotations

import logging
import os
import pathlib
from functools import partial

import rich.table
import structlog

from services.gateway.cluster import cluster
from services.gateway.command_line.doctor import (
    configuration,
    findings,
    installation,
    machine,
    running,
)
from shared import errors, terminal
from shared import settings as config

_LIMIT_S = 4.0
"""For all checks together, which run at the same time."""
_STYLES = {"ok": "green", "warning": "yellow", "error": "red"}


def run(as_json: bool) -> None:
    """Makes all checks and prints what they found.

    Raises:
        terminal.FailedError: something does not work.
    """
    # What a check meets is in its finding; a log line amid them would only say it twice.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found = examined()
    wrong = [finding for finding in found if finding.level == "error"]
    if as_json:
        warnings = sum(finding.level == "warning" for finding in found)
        terminal.print_json({"errors": len(wrong), "warnings": warnings, "findings": found})
    else:
        _show(found)
    if wrong:
        things = ", ".join(dict.fromkeys(finding.about for finding in wrong))
        raise terminal.FailedError(f"{len(wrong)} findings need mending: {things}")


def examined(limit_s: float = _LIMIT_S) -> list[findings.Finding]:
    """What all checks find, in at most so many seconds."""
    checks: dict[str, findings.Check] = {
        "python": installation.python,
        "packages": partial(installation.packages, cluster.ROOT / "requirements.lock"),
        "embedder": installation.embedder,
    }
    try:
        settings = config.load()
    except errors.ConfigError as trouble:
        first = findings.error("configuration", str(trouble), "correct that key or line")
        return [first, *findings.gathered(checks, limit_s)]
    checks |= {
        "base model": partial(installation.base_model, settings),
        "ports": partial(machine.ports, settings),
        "state folder": partial(machine.state_folder, settings),
        "clock": partial(machine.clock, settings),
        "discovery": partial(machine.networks, settings),
        "teachers": partial(configuration.teachers, settings),
        "TLS": partial(configuration.tls, settings),
        "tokens": partial(configuration.tokens, settings),
        "keys": partial(configuration.keys, settings),
        "services": partial(running.services, settings),
        "versions": partial(running.freshness, settings),
        "nodes": partial(running.nodes, settings),
        "store": partial(running.store, settings),
    }
    found: dict[str, findings.Finding] = {}
    for finding in [_configuration(), *findings.gathered(checks, limit_s)]:
        # A cause that several checks meet, such as a certificate that can't be read, is told once.
        found.setdefault(finding.text, finding)
    return list(found.values())


def _configuration() -> findings.Finding:
    path = pathlib.Path(os.environ.get(config.CONFIG_VARIABLE, config.DEFAULT_CONFIG)).absolute()
    if path.is_file():
        return findings.ok("configuration", f"{path} can be read")
    return findings.warning(
        "configuration",
        f"there is no {path}: every setting has its default",
        "run it where your config.yaml is, or name it with --config",
    )


def _show(found: list[findings.Finding]) -> None:
    if not terminal.RESULT.is_terminal:
        for finding in found:
            line = f"{finding.level} {finding.about}: {finding.text}"
            line += f" → {finding.remedy}" if finding.remedy else ""
            # Whatever a message holds, a finding is one line for those that read lines.
            terminal.RESULT.print(" ".join(line.split()), markup=False, soft_wrap=True)
        return
    table = rich.table.Table.grid(padding=(0, 2))
    for finding in found:
        text = terminal.escape(finding.text)
        if finding.remedy:
            text += f"\n→ {terminal.escape(finding.remedy)}"
        level = f"[{_STYLES[finding.level]}]{finding.level}[/]"
        table.add_row(level, finding.about, text)
    terminal.RESULT.print(table)
