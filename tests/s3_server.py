"""An S3 server for one bucket in memory: enough for the object store client of `pyarrow.fs`.

Objects, multipart uploads, ranges and listings by prefix; signatures are not looked at.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import io
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator
from typing import IO


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _parts(self) -> tuple[str, dict[str, str]]:
        url = urllib.parse.urlsplit(self.path)
        key = urllib.parse.unquote(url.path).lstrip("/").partition("/")[2]
        return key, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = _joined(self.rfile)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # The client has chunks of its own, with checksums, within those of HTTP.
        is_chunked = "aws-chunked" in self.headers.get("Content-Encoding", "")
        return _joined(io.BytesIO(body)) if is_chunked else body

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        key, _ = self._parts()
        found = self.server.objects.get(key)
        if found is None:
            return self._answer(404 if key else 200)
        modified = email.utils.formatdate(found[1], usegmt=True)
        return self._answer(200, Content_Length=str(len(found[0])), Last_Modified=modified)

    def do_GET(self) -> None:
        key, query = self._parts()
        if not key:
            return self._list(query.get("prefix", ""))
        if (found := self.server.objects.get(key)) is None:
            return self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        asked = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(asked[1]) if asked else 0
        last = int(asked[2]) if asked and asked[2] else len(found[0]) - 1
        told = f"bytes {first}-{last}/{len(found[0])}"
        return self._answer(206 if asked else 200, found[0][first : last + 1], Content_Range=told)

    def _list(self, prefix: str) -> None:
        entries = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><LastModified>"
            f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(at_s))}</LastModified></Contents>"
            for key, (data, at_s) in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self._answer(200, text.encode(), Content_Type="application/xml")

    def do_PUT(self) -> None:
        key, query = self._parts()
        if "partNumber" in query:
            self.server.parts[query["uploadId"]][int(query["partNumber"])] = self._body()
        else:
            self.server.objects[key] = (self._body(), time.time())
        self._answer(200, ETag='"etag"')

    def do_POST(self) -> None:
        key, query = self._parts()
        self._body()
        if "uploads" in query:
            upload = f"upload-{len(self.server.parts)}"
            self.server.parts[upload] = {}
            told = f"<UploadId>{upload}</UploadId>"
            text = f"<InitiateMultipartUploadResult>{told}</InitiateMultipartUploadResult>"
        else:
            parts = self.server.parts.pop(query["uploadId"])
            self.server.objects[key] = (b"".join(parts[n] for n in sorted(parts)), time.time())
            text = (
                "<CompleteMultipartUploadResult><ETag>etag</ETag></CompleteMultipartUploadResult>"
            )
        self._answer(200, text.encode(), Content_Type="application/xml")

    def do_DELETE(self) -> None:
        self.server.objects.pop(self._parts()[0], None)
        self._answer(204)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _joined(chunks: IO[bytes]) -> bytes:
    """What was sent in chunks, each behind a line with its size in hex."""
    whole = b""
    while (size := int(chunks.readline().split(b";")[0], 16)) > 0:
        whole += chunks.read(size)
        chunks.readline()
    while chunks.readline().strip():
        pass  # Trailing headers.
    return whole


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[bytes, float]] = {}
        self.parts: dict[str, dict[int, bytes]] = {}

    def url(self, folder: str) -> str:
        """Of a folder of the bucket, as `card_store.blobs_url` takes it."""
        host = urllib.parse.quote(f"127.0.0.1:{self.server_port}", safe="")
        return f"s3://key:secret@cards/{folder}?region=x&scheme=http&endpoint_override={host}"


@contextlib.contextmanager
def running() -> Iterator[_Server]:
    """The server on a free port of loopback."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
