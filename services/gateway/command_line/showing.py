"""`console` of the local cluster."""

from __future__ import annotations

import os
import sys
import webbrowser

from services.gateway.cluster import cluster, urls
from services.gateway.command_line import operating
from shared import errors, terminal
from shared import settings as config


def console(as_json: bool) -> None:
    """Opens the console, of a cluster that is started where none runs.

    Args:
        as_json: print where it is, and open nothing.

    Raises:
        errors.ConfigError: the configuration has none.
    """
    settings = config.load()
    url = urls.console_url(settings)
    if not (settings.gateway.enabled and url):
        raise errors.ConfigError(
            "there is no console: set gateway.enabled and gateway.console to true in config.yaml, "
            "then `make down` and `make up`"
        )
    local = cluster.Cluster(settings)
    if not local.supervisor.alive():
        operating.started(local)
    if as_json:
        terminal.print_json({"url": url})
        return
    opened = _has_display() and webbrowser.open(url)
    terminal.RESULT.print(f"{'Opened' if opened else 'The console:'} {url}")


def _has_display() -> bool:
    """Without one a browser in the terminal would take it over."""
    return sys.platform == "darwin" or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
