"""A web server on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """How one request is answered."""

    status: int | None = None
    """Send this status and nothing else."""
    cut: int | None = None
    """Close the connection after so many bytes of the body."""
    stall: int | None = None
    """Send nothing more after so many bytes of the body, for a while."""
    ranges: bool = True
    body: bytes | None = None
    """Other bytes than the file's."""
    content_type: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()
    length: bool = True
    shift: int = 0
    """Answer another range than the one asked for."""


@dataclass
class FlakyServer:
    """Serves `content` under every path; the first requests get `answers`, in order, the others a good answer."""

    content: bytes
    answers: list[Answer] = field(default_factory=list)
    etag: str | None = '"v1"'
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """(path, Range header) of each request so far."""
    url: str = ""

    def next_answer(self) -> Answer:
        return self.answers.pop(0) if self.answers else Answer()


@contextmanager
def serve(content: bytes, *answers: Answer) -> Iterator[FlakyServer]:
    """Run a server in a thread while the block runs."""
    state = FlakyServer(content, list(answers))
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_HEAD(self) -> None:
            """What the Hugging Face hub tells about a file."""
            digest = hashlib.sha256(state.content).hexdigest()
            headers = {
                "X-Repo-Commit": "c" * 40,
                "X-Linked-Size": str(len(state.content)),
                "X-Linked-Etag": f'"{digest}"',
            }
            self.send_response(200)
            for name, value in (headers | {"ETag": f'"{digest}"', "Content-Length": str(len(state.content))}).items():
                self.send_header(name, value)
            self.end_headers()

        def do_GET(self) -> None:
            state.requests.append((self.path, self.headers.get("Range")))
            answer = state.next_answer()
            if answer.status is not None:
                self.send_response(answer.status)
                for name, value in answer.headers:
                    self.send_header(name, value)
                self.end_headers()
                return
            self._send_body(answer)

        def _send_body(self, answer: Answer) -> None:
            body = state.content if answer.body is None else answer.body
            start = self._wanted_start(answer)
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            if start:
                start += answer.shift
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            self.send_header("Content-Type", answer.content_type)
            if answer.length:
                self.send_header("Content-Length", str(len(body) - start))
            if state.etag:
                self.send_header("ETag", state.etag)
            self.end_headers()
            rest = body[start:]
            for limit in (answer.cut, answer.stall):
                rest = rest if limit is None else rest[:limit]
            self.wfile.write(rest)
            if answer.stall is not None:
                self.wfile.flush()
                released.wait(5)

        def _wanted_start(self, answer: Answer) -> int:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            condition = self.headers.get("If-Range")
            fits = condition is None or condition == state.etag
            return int(wanted[1]) if wanted and answer.ranges and fits else 0

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield state
    finally:
        released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
