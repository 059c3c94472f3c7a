"""A proxy in front of a server that misbehaves on demand and remembers what it was asked."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"
DECISIONS = "/v1/systemone"


@dataclass(frozen=True)
class Fault:
    """What is done instead of passing a request on; `delay`: seconds before, whatever is done."""

    status: int | None = None
    body: bytes = b'{"error": {"message": "made up by the proxy"}}'
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    cut: bool = False
    """Close the connection without an answer."""
    text: str | None = None
    """Answer a chat completion with this text."""


@dataclass
class Proxy:
    """`faults` are taken in order, one for each request that is no probe; `always` decides where none is left."""

    upstream: str
    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    always: Callable[[dict[str, Any]], Fault | None] = lambda body: None
    asked: list[dict[str, Any]] = field(default_factory=list)
    """The bodies of all requests, probes too."""
    digests: Counter[str] = field(default_factory=Counter)
    """How often each body with a picture was answered."""
    times: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def real(self) -> list[dict[str, Any]]:
        """The requests for a mask, or about an expression: those with a picture that are no probe."""
        return [body for body in self.asked if is_real(body)]


def is_real(body: dict[str, Any]) -> bool:
    """Whether a request is one of the captioner's or the listener's, and no probe of the server."""
    if "questions" in body:
        return "shown" not in body["questions"]
    parts = [
        part
        for message in body.get("messages", [])
        for part in (message["content"] if isinstance(message["content"], list) else [])
    ]
    pictures = any(part.get("type") == "image_url" for part in parts)
    is_question = any("Description: " in part.get("text", "") for part in parts)
    return pictures and (is_question or body.get("max_tokens", 0) >= 16)


@contextmanager
def misbehaving(upstream: str, port: int = 0) -> Iterator[Proxy]:
    """Run a proxy in threads while the block runs."""
    state = Proxy(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass(b"")

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.path not in (CHAT, DECISIONS):
                self._pass(data)
                return
            body = json.loads(data)
            with state.lock:
                state.asked.append(body)
                state.times.append(time.monotonic())
                mask = is_real(body)
                fault = state.faults.pop(0) if state.faults and mask else state.always(body)
                state.in_flight += mask
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
            try:
                if fault and fault.delay:
                    time.sleep(fault.delay)
                if fault and (fault.status or fault.cut or fault.text is not None):
                    self._fail(fault)
                elif self._pass(data) and mask:
                    with state.lock:
                        state.digests[hashlib.sha256(data).hexdigest()] += 1
            finally:
                with state.lock:
                    state.in_flight -= mask

        def _fail(self, fault: Fault) -> None:
            if fault.cut:
                self.close_connection = True
                self.connection.close()
                return
            body, status = fault.body, fault.status or 200
            if fault.text is not None:
                choice = {"index": 0, "message": {"role": "assistant", "content": fault.text}, "finish_reason": "stop"}
                body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}).encode()
            self.send_response(status)
            for name, value in (
                ("Content-Type", fault.content_type),
                ("Content-Length", str(len(body))),
                *fault.headers,
            ):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _pass(self, data: bytes) -> bool:
            """Hand on, and say whether the answer reached the client."""
            host = urlsplit(state.upstream)
            there = http.client.HTTPConnection(host.hostname or "", host.port, timeout=120)
            try:
                there.request(self.command, self.path, data or None, {"Content-Type": "application/json"})
                answer = there.getresponse()
                body = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.getheader("Content-Type", "application/json"))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return answer.status == 200
            except OSError:
                self.close_connection = True
                return False
            finally:
                there.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that has left, as one that was stopped does: nothing that is to be seen in its output."""

    server = Server(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
