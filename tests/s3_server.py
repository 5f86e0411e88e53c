"""An S3 server on loopback: moto's, in a thread of the test."""

from __future__ import annotations

import contextlib
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator

from moto import server as moto_server


class Server:
    """One that runs; see `running`."""

    def __init__(self, port: int) -> None:
        self._endpoint = f"127.0.0.1:{port}"
        # What moto keeps is the process's: another bucket for each test.
        self.bucket = f"cards-{uuid.uuid4().hex[:8]}"
        self._call("PUT", self.bucket)

    def url(self, folder: str) -> str:
        """Of a folder of the bucket, as `card_store.blobs_url` takes it."""
        host = urllib.parse.quote(self._endpoint, safe="")
        where = f"region=us-east-1&scheme=http&endpoint_override={host}"
        return f"s3://key:secret@{self.bucket}/{folder}?{where}"

    def _call(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"http://{self._endpoint}/{path}", method=method)
        with urllib.request.urlopen(request, timeout=30):
            pass


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """The server on a free port."""
    server = moto_server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield Server(server.get_host_and_port()[1])
    finally:
        server.stop()
