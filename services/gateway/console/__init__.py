"""The console: pages over HTTP and a websocket, one a subject, mounted into the gateway's app."""

from services.gateway.console.mounting import PREFIX, mount

__all__ = ["PREFIX", "mount"]
