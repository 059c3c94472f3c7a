"""A real local S3 server (moto's server mode), and a proxy in front of it that stalls, resets and sends too little on demand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["stall", "reset", "short", "cut", "503"]
SECRET = "a-secret-that-is-written-nowhere"
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"}
KEY = "AKIAWRITTENNOWHERE00"


@dataclass
class Proxy:
    """`faults` are taken in order, one for each GET of an object's bytes; `always` decides where none is left."""

    url: str = ""
    latency: float = 0.0
    """Seconds before each answer."""
    stalled: float = 5.0
    faults: list[Fault] = field(default_factory=list)
    always: Callable[[str], Fault | None] = lambda path: None
    ranges: list[tuple[str, str]] = field(default_factory=list)
    """Path and Range header of each GET of an object."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def moto() -> Iterator[str]:
    """The address of an S3 server in this process, empty, without any check of credentials."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def upload(url: str, bucket: str, folder: Path, prefix: str = "") -> None:
    """Put every file of a folder into a bucket, which is made."""
    put(url, f"/{bucket}")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            put(url, f"/{bucket}/{prefix}{path.relative_to(folder).as_posix()}", path.read_bytes())


def put(url: str, path: str, data: bytes = b"") -> None:
    """One PUT, by hand: the clients' own caches stay as they are."""
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request(
        "PUT", path, data, {"Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request"}
    )
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, (path, answer.status)
    connection.close()


def delete(url: str, path: str) -> None:
    """Remove an object."""
    connection = HTTPConnection(urlsplit(url).netloc)
    connection.request("DELETE", path, headers=SIGNED)
    assert connection.getresponse().status == 204
    connection.close()


@contextmanager
def misbehaving(upstream: str) -> Iterator[Proxy]:
    """Run the proxy in threads while the block runs."""
    state = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass()

        do_HEAD = do_GET

        def _pass(self) -> None:
            time.sleep(state.latency)
            is_object = self.command == "GET" and "list-type" not in self.path and self.path.count("/") > 1
            fault = self._fault() if is_object else None
            if fault == "stall":
                time.sleep(state.stalled)
            if fault == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                self.connection.close()
                return
            connection = HTTPConnection(urlsplit(upstream).netloc)
            connection.request(self.command, self.path, headers=dict(self.headers))
            answer = connection.getresponse()
            try:
                self._answer(answer, answer.read(), fault)
            except OSError:
                self.close_connection = True
            connection.close()

        def _answer(self, answer: HTTPResponse, data: bytes, fault: Fault | None) -> None:
            if fault == "short":
                data = data[: len(data) // 2]
            self.send_response(503 if fault == "503" else answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(data))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 3] if fault == "cut" else data)
            if fault == "cut":
                self.close_connection = True

        def _fault(self) -> Fault | None:
            with state.lock:
                state.ranges.append((self.path, self.headers.get("Range", "")))
                return state.faults.pop(0) if state.faults else state.always(self.path)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
