"""Patterns and URLs as text."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packed import pack

from pseudoris_cli.errors import UsageError
from pseudoris_cli.places import addresses, ahead
from pseudoris_cli.sources import registry


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("{08..11}", ["08", "09", "10", "11"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{3..1}", ["3", "2", "1"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{a}", ["a"]),
        ("{,x}", ["", "x"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert list(addresses.expand_braces(pattern)) == names


def test_absurd_braces_are_refused() -> None:
    with pytest.raises(UsageError, match="more than 1,000,000 names"):
        next(addresses.expand_braces("{0..9999999999}"))


def test_a_url_that_lost_a_slash_is_told() -> None:
    with pytest.raises(UsageError, match=r"a URL has two slashes: s3://"):
        registry.located("s3:/bucket/data")


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    assert registry.located(f"file://{tmp_path}") == tmp_path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[bool]]]:
    """A plain web server of a folder; its list says whether it knows ranges."""
    ranges = [True]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = tmp_path / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            wanted = self.headers.get("Range") if ranges[0] else None
            self.send_response(206 if wanted else 200)
            if wanted:
                first, last = wanted.removeprefix("bytes=").split("-")
                data = data[int(first) : int(last) + 1]
            self.send_header("Accept-Ranges", "bytes" if ranges[0] else "none")
            self.send_header("ETag", str(os.stat(path).st_mtime_ns))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", ranges
    server.shutdown()
    server.server_close()


def test_tars_of_a_web_server(web: tuple[str, list[bool]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, ranges = web
    pictures = {f"{number}.png": bytes([number]) * 3000 for number in range(9)}
    pack("webdataset", pictures, tmp_path / "t")
    source = registry.open_source(registry.describe(f"{url}/t/{{00000..00003}}.tar", {}, None))
    assert {ref.name: source.read(ref.key) for ref in source.images()} == pictures
    ranges[0] = False
    monkeypatch.setattr(ahead, "BLOCK", 1000)
    source = registry.open_source(registry.describe(f"{url}/t/{{00000..00003}}.tar", {}, None))
    with pytest.raises(UsageError, match="sends whole files where a range is asked for"):
        [source.read(ref.key) for ref in source.images()]
