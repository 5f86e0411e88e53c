"""What the two processes of the card store have in common on their machine.

The folder, the catalogue's URL, the memory limit, and the file by which the data plane tells the
control plane its port.
"""

from __future__ import annotations

import os
import pathlib

from services.card_store import blobs, bucket
from shared import errors
from shared import settings as config
from shared.rpc import process

_ADDRESS_FILE = "flight_address"
_MEMORY_BYTES = 1024 * 1024 * 1024
"""What a process needs beside the uploads in its hands, stacks of its threads included."""
_UPLOADS_IN_MEMORY = 4


def folder(settings: config.Settings) -> pathlib.Path:
    """Where everything that the card store keeps lies."""
    return settings.state_path("card_store").absolute()


def blob_store(settings: config.Settings) -> blobs.BlobStore:
    """The store's files.

    Raises:
        errors.ConfigError: the folder can't be made, or card_store.blobs_url is wrong.
    """
    store = settings.card_store
    if not store.blobs_url:
        return blobs.BlobStore(folder(settings))
    cache_bytes = store.blob_cache_mib * 2**20
    return bucket.BucketBlobs(folder(settings), bucket.Bucket(store.blobs_url), cache_bytes)


def catalogue_url(settings: config.Settings) -> str:
    """The catalogue's SQLAlchemy URL."""
    if settings.card_store.database_url:
        return settings.card_store.database_url
    # SQLAlchemy takes what follows the third slash as it is, whatever characters it has.
    return f"sqlite:///{folder(settings) / 'catalogue.db'}"


def limit_memory(settings: config.Settings) -> None:
    """Keeps this process from taking the machine's memory."""
    process.limit_memory(
        _MEMORY_BYTES + _UPLOADS_IN_MEMORY * settings.card_store.largest_upload_bytes
    )


def tell_flight_address(settings: config.Settings, port: int) -> None:
    """Writes down where the data plane listens, for a control plane configured with port 0.

    Raises:
        errors.ConfigError: the folder can't be written.
    """
    host = settings.card_store.flight_address.rpartition(":")[0]
    path = folder(settings) / _ADDRESS_FILE
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_text(f"{host}:{port}", encoding="ascii")
        os.replace(part, path)
    except OSError as error:
        raise errors.ConfigError(f"can't write {path}: {error}; check cluster.state_dir") from error


def flight_address(settings: config.Settings) -> str:
    """Where the data plane listens; empty while it took no port yet."""
    configured = settings.card_store.flight_address
    if configured.rpartition(":")[2] != "0":
        return configured
    try:
        return (folder(settings) / _ADDRESS_FILE).read_text(encoding="ascii")
    except OSError:
        return ""
