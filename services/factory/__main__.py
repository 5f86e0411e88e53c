"""`python -m services.factory`: runs the skill factory until a signal."""

from __future__ import annotations

from services.factory import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("factory", server.serve)
