"""The real `transformers serve` on the tiny model of tests/fixtures/tiny_vlm, as a process of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from locations import FIXTURES, SUPPORT

MODEL = "tiny-vlm"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "OMP_NUM_THREADS": "1",
}
START_SECONDS = 120


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextmanager
def transformers_serve(folder: Path, model: str = MODEL) -> Iterator[str]:
    """`transformers serve`, pinned to the fixture under the name `model`; gives its address (.../v1)."""
    if not (folder / model).exists():
        shutil.copytree(FIXTURES / "tiny_vlm", folder / model)
    # the folder in which transformers is run is where it finds the model under its bare name
    code = "from transformers.cli.transformers import main; main()"
    call = [sys.executable, "-c", code, "serve", model, "--device", "cpu", "--dtype", "float32"]
    with running(call, folder, folder / "serve.log") as url:
        yield url


@contextmanager
def logits_server(folder: Path) -> Iterator[str]:
    """Our own small server around the same model: its real logits, with log-probabilities, JSON schemas and choices."""
    call = [sys.executable, str(SUPPORT / "logits_server.py"), str(FIXTURES / "tiny_vlm")]
    with running(call, folder, folder / "logits.log") as url:
        yield url


@contextmanager
def running(call: list[str], folder: Path, log: Path) -> Iterator[str]:
    """A server that takes --host and --port and answers at /health."""
    port = free_port()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*call, "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **OFFLINE},
        )
    try:
        _wait(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends = time.monotonic() + START_SECONDS
    while time.monotonic() < ends:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the server did not start:\n{log.read_text(errors='replace')[-3000:]}")
