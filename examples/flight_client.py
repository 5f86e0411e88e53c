"""Lists a store's cards and fetches one, with nothing but Arrow Flight.

    python examples/flight_client.py 127.0.0.1:7406             # card_store.flight_address
    python examples/flight_client.py 127.0.0.1:7406 NAME        # as a table, and as a file

Any language with an Arrow Flight client does the same. Where tokens are on, add the header
`authorization: Bearer TOKEN`.
"""

import hashlib
import json
import pathlib
import sys

import pyarrow.flight


def cards(client: pyarrow.flight.FlightClient) -> dict[str, dict]:
    """What the store lists, by name."""
    found = [json.loads(info.descriptor.command) for info in client.list_flights()]
    return {card["name"]: card for card in found}


def fetch(client: pyarrow.flight.FlightClient, digest: str) -> bytes:
    """A card's own file: its SHA-256 is the digest that was asked for."""
    ticket = pyarrow.flight.Ticket(json.dumps({"digest": digest, "raw": True}))
    chunks = client.do_get(ticket).read_all().column("chunk").to_pylist()
    data = b"".join(chunks)
    if hashlib.sha256(data).hexdigest() != digest:
        raise SystemExit("what arrived is not what was asked for")
    return data


if __name__ == "__main__":
    client = pyarrow.flight.connect(f"grpc://{sys.argv[1]}")
    listed = cards(client)
    for name, card in listed.items():
        print(name, card["version"], card["digest"], card["size_bytes"])
    if len(sys.argv) > 2:
        digest = listed[sys.argv[2]]["digest"]
        ticket = pyarrow.flight.Ticket(json.dumps({"digest": digest}))
        table = client.do_get(ticket).read_all()
        for row in table.select(["module", "rank", "alpha", "dtype"]).to_pylist():
            print(row)
        path = pathlib.Path(f"{sys.argv[2]}.lora.arrow")
        path.write_bytes(fetch(client, digest))
        print(f"written to {path}")
