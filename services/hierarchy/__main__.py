"""The hierarchy's service: `python -m services.hierarchy`."""

from __future__ import annotations

from services.hierarchy import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("hierarchy", server.serve)
