"""Runs the distiller: `python -m services.distiller`."""

from __future__ import annotations

from services.distiller import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("distiller", server.serve)
