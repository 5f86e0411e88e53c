"""The inference node: `python -m services.inference`."""

from __future__ import annotations

from services.inference import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("inference", server.serve)
