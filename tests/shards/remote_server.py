"""A server on this machine for the tests of remote files: plain HTTP, and enough of S3 to read."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[str]:
    """Serves files by path, such as `bucket/folder/name`; gives the server's address.

    GET and HEAD know ranges. A GET of a bucket with `list-type=2` is S3's ListObjectsV2.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            address = urlsplit(self.path)
            path, query = unquote(address.path).strip("/"), parse_qs(address.query)
            extra = {"Accept-Ranges": "bytes", "ETag": '"0"'}
            status, body = 200, files.get(path)
            if "list-type" in query:
                body = _listing(files, path, query.get("prefix", [""])[0], "delimiter" in query)
            elif body is None:
                status, body = 404, b""
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if status == 200 and asked:
                first, last = int(asked[1]), int(asked[2] or len(body) - 1)
                extra["Content-Range"] = f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"
                status, body = 206, body[first : last + 1]
            self.send_response(status)
            for name, value in {**extra, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _listing(files: Mapping[str, bytes], bucket: str, prefix: str, by_folder: bool) -> bytes:
    keys = [path.partition("/")[2] for path in files if path.startswith(f"{bucket}/")]
    keys = [key for key in keys if key.startswith(prefix)]
    folders = set()
    if by_folder:
        folders = {f"{prefix}{k[len(prefix):].partition('/')[0]}/"
                   for k in keys if "/" in k[len(prefix):]}  # fmt: skip
        keys = [key for key in keys if "/" not in key[len(prefix) :]]
    contents = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f'<ETag>"0"</ETag><Size>{len(files[f"{bucket}/{key}"])}</Size></Contents>'
        for key in keys
    )
    contents += "".join(
        f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in sorted(folders)
    )
    return (
        '<?xml version="1.0"?><ListBucketResult '
        'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(keys) + len(folders)}"
        f"</KeyCount><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    ).encode()
