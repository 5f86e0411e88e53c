"""Where people and their tools reach a cluster: the addresses of the API and of the console."""

from __future__ import annotations

from shared import settings as config

_CONSOLE_PATH = "/console/"
_EVERYWHERE = ("0.0.0.0", "[::]", "::")


def api_url(settings: config.Settings) -> str:
    """What OpenAI's tools call the base URL."""
    return f"{_origin(settings)}/v1"


def console_url(settings: config.Settings) -> str:
    """Where the pages are; empty where there are none."""
    return f"{_origin(settings)}{_CONSOLE_PATH}" if settings.gateway.console else ""


def addresses(settings: config.Settings) -> list[tuple[str, str]]:
    """Names and addresses of what people use; nothing where the gateway does not run."""
    if not settings.gateway.enabled:
        return []
    found = [("API", api_url(settings)), ("console", console_url(settings))]
    return [(name, url) for name, url in found if url]


def _origin(settings: config.Settings) -> str:
    host, _, port = settings.gateway.address.rpartition(":")
    scheme = "http" if settings.security.tls.certificate is None else "https"
    return f"{scheme}://{'127.0.0.1' if host in _EVERYWHERE else host}:{port}"
