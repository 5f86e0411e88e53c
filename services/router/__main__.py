"""The router: `python -m services.router`."""

from __future__ import annotations

from services.router import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("router", server.serve)
