"""The card store's control plane: `python -m services.card_store`.

The data plane is a process of its own: `python -m services.card_store.data_plane`.
"""

from __future__ import annotations

from services.card_store import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("card_store", server.serve)
