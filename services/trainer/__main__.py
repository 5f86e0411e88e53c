"""`python -m services.trainer`: trains and proves cards."""

from services.trainer import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("trainer", server.serve)
