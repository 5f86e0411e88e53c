"""Runs the gateway's HTTP process: `python -m services.gateway.web`."""

from services.gateway.web import server
from shared.rpc import process

if __name__ == "__main__":
    process.run("gateway", server.serve)
