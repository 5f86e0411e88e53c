"""`LoRAFlightServer`: the card store's data plane, a process of its own.

Takes uploads into staging and serves committed files, as raw bytes or as Arrow tables; what is
committed it reads from the catalogue, which it never changes. Interprets no weights.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pyarrow as pa
import pyarrow.flight
import structlog

from services.card_store import blobs, processes, records, tickets, view
from services.card_store.catalogue import catalogue, schema
from shared import discovery, errors, multicast
from shared import settings as config
from shared.cards import format as formats
from shared.flight import access, commands
from shared.flight import server as flight_server
from shared.rpc import process
from shared.rpc import server as rpc_server
from shared.security import protection as protections
from shared.telemetry import metrics

_log = structlog.get_logger(__name__)
_PAGE_CARDS = 200


class LoRAFlightServer(flight_server.FlightServer):
    """Cards, datasets and snapshots over Arrow Flight; listens once constructed."""

    def __init__(
        self,
        address: str,
        files: blobs.BlobStore,
        cards: catalogue.Catalogue,
        largest_upload_bytes: int,
        protection: protections.Protection = protections.OPEN,
    ) -> None:
        """Binds and serves in threads of its own.

        Args:
            address: `host:port`; port 0 takes a free one, see `port`.
            files: where uploads go and committed files lie.
            cards: opened for reading.
            largest_upload_bytes: larger uploads are refused.
            protection: its certificate, and who may call.

        Raises:
            errors.ConfigError: the port is taken.
        """
        # Calls may arrive before the base class returns.
        self._files, self._cards = files, cards
        self._largest_upload_bytes = largest_upload_bytes
        super().__init__(address, "card_store.flight_address", access.CARD_STORE, protection)

    def do_put(
        self,
        context: pyarrow.flight.ServerCallContext,
        descriptor: pyarrow.flight.FlightDescriptor,
        reader: pyarrow.flight.MetadataRecordBatchReader,
        writer: pyarrow.flight.FlightMetadataWriter,
    ) -> None:
        """Takes one upload into staging; only the control plane's Commit makes it visible."""
        with flight_server.flight_errors("do_put"):
            command = tickets.parse_put(descriptor.command, self._largest_upload_bytes)
            self._files.stage(command.digest, command.size_bytes, self.received(reader, command))

    def do_get(
        self, context: pyarrow.flight.ServerCallContext, ticket: pyarrow.flight.Ticket
    ) -> pyarrow.flight.FlightDataStream:
        """Sends a committed file: its bytes in chunks, or the table that it holds."""
        with flight_server.flight_errors("do_get"):
            wanted = commands.parse_get(ticket.ticket)
            self._check_visible(context, wanted.digest)
            path = self._committed(wanted.digest)
            if wanted.raw:
                return self.sent(pa.memory_map(str(path)))
            return self.sent_table(pa.ipc.open_file(pa.memory_map(str(path))).read_all())

    def list_flights(
        self, context: pyarrow.flight.ServerCallContext, criteria: bytes
    ) -> Iterator[pyarrow.flight.FlightInfo]:
        """Every committed card, all versions; criteria may be a card's name."""
        with flight_server.flight_errors("list_flights"):
            name = criteria.decode(errors="replace")
            token = ""
            while True:
                query = records.Query(
                    all_versions=True,
                    name=name,
                    page_size=_PAGE_CARDS,
                    page_token=token,
                    tenants=access.caller_of(context).tenants,
                )
                page = self._cards.list_cards(query)
                yield from self._infos([card for card in page.cards if not card.remote])
                token = page.next_page_token
                if not token:
                    return

    def get_flight_info(
        self,
        context: pyarrow.flight.ServerCallContext,
        descriptor: pyarrow.flight.FlightDescriptor,
    ) -> pyarrow.flight.FlightInfo:
        """One card, by the path [reference] or by the command that list_flights gave.

        It has one endpoint, the whole file, whose locations are this store and each peer that has
        the same bytes: to Flight, locations of one endpoint are equivalent and a client takes any,
        while several endpoints are parts of the data, of which a client fetches every one. A card
        that only this store has comes without a location: fetch it from whom you asked. One that
        is here only on record has those of the peers alone.
        """
        with flight_server.flight_errors("get_flight_info"):
            reference = tickets.reference_of(descriptor.command, descriptor.path)
            card = self._cards.get(reference)
            view.check_visible(card, access.caller_of(context).tenants, reference)
            if card.state is not records.CardState.ACTIVE:
                raise errors.NotFoundError(f"card {reference!r} was {card.state.value.lower()}")
            return self._infos([card])[0]

    def _infos(self, cards: Sequence[records.CardRecord]) -> list[pyarrow.flight.FlightInfo]:
        replicas = self._cards.copies.replicas([card.digest for card in cards])
        here = self._addresses() if replicas else []
        found = []
        for card in cards:
            there = [self._location(peer) for peer in replicas.get(card.digest, [])]
            # Without replicas none at all: whoever asked has a way here, whatever its name is.
            found.append(_info(card, [*here, *there] if there and not card.remote else there))
        return found

    def _addresses(self) -> list[str]:
        """Where others reach this server, which may listen on every address of its machine."""
        hosts = discovery.outer_hosts(self.host, multicast.addresses())
        scheme = "grpc+tls" if self.protection.encrypts_serving else "grpc"
        return [f"{scheme}://{host}:{self.port}" for host in hosts]

    def _location(self, peer: str) -> str:
        return f"{'grpc+tls' if self.protection.encrypts_calls else 'grpc'}://{peer}"

    def _check_visible(self, context: pyarrow.flight.ServerCallContext, digest: str) -> None:
        """Another tenant's card is not found; datasets are nobody's."""
        tenants = access.caller_of(context).tenants
        if tenants is None or not self._cards.known([digest]):
            return
        if not view.is_visible(self._cards.get(digest), tenants):
            raise _nothing(digest)

    def _committed(self, digest: str) -> pathlib.Path:
        # A file may lie among the blobs without being committed: a crash came between.
        path = self._files.committed(digest) if self._cards.holds(digest) else None
        if path is None:
            raise _nothing(digest)
        return path


def _nothing(digest: str) -> errors.NotFoundError:
    """The same words for what is not there and for what the caller may not know of."""
    return errors.NotFoundError(f"nothing is committed with digest {digest}")


def _info(card: records.CardRecord, locations: Sequence[str]) -> pyarrow.flight.FlightInfo:
    ticket = pyarrow.flight.Ticket(tickets.table_ticket(card.digest))
    descriptor = pyarrow.flight.FlightDescriptor.for_command(tickets.listing_command(card))
    endpoint = pyarrow.flight.FlightEndpoint(ticket, list(locations))
    return pyarrow.flight.FlightInfo(formats.SCHEMA, descriptor, [endpoint], -1, card.size_bytes)


@contextlib.asynccontextmanager
async def running(settings: config.Settings) -> AsyncIterator[LoRAFlightServer]:
    """The data plane, from its start to its graceful stop.

    Raises:
        errors.ConfigError: the port is taken, or folder or database are wrong.
    """
    files = processes.blob_store(settings)
    cards = catalogue.Catalogue(schema.open_read_only(processes.catalogue_url(settings)))
    store = settings.card_store
    protection = protections.Protection.configured(settings)
    server = LoRAFlightServer(
        store.flight_address, files, cards, store.largest_upload_bytes, protection
    )
    try:
        processes.tell_flight_address(settings, server.port)
        removed = await asyncio.to_thread(files.clean, time.time())
        _log.info("data plane listens", port=server.port, leftovers_removed=removed)
        with metrics.serving(settings, "card_store_data", server.transfers):
            yield server
    finally:
        await asyncio.to_thread(server.stop)
        cards.close()


async def serve(settings: config.Settings) -> None:
    """Runs the data plane until a signal."""
    processes.limit_memory(settings)
    async with running(settings):
        await rpc_server.until_signal()
        # Nothing is lost by a hard exit: whatever is half written is a leftover.
        flight_server.exit_soon()


if __name__ == "__main__":
    process.run("card_store.data_plane", serve)
