"""Shared by all tests: one thread unless OMP_NUM_THREADS says otherwise, no settings from the outside, a cache of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COLUMNS", "120")
for name in ("PSEUDORIS_WORK", "FORCE_COLOR", "CUDA_VISIBLE_DEVICES", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
    os.environ.pop(name, None)

import hypothesis  # noqa: E402  # after the environment is set
import pytest  # noqa: E402

if TYPE_CHECKING:
    from command_server import CommandServer
    from vlm_proxy import Proxy

# The same examples everywhere, and no limit of time: what CI sees, a developer sees too.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture
def repository() -> Path:
    """The top of the checkout."""
    return REPOSITORY


@pytest.fixture(autouse=True)
def _apart(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the user's cache nor a pseudoris.yaml in the current folder may decide a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("PSEUDORIS_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def ram() -> Iterator[Path]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-test-", dir=memory if os.access(memory, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ram_path(ram: Path) -> Path:
    """Like tmp_path, but in memory where there is such a place: thousands of fsyncs cost nothing there."""
    return Path(tempfile.mkdtemp(dir=ram))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with these options, here and for as long as the test lasts."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        kind = ["-o", f"remount,{options}"] if os.path.ismount(place) else ["-t", "tmpfs", "-o", options, "tmpfs"]
        done = subprocess.run(["mount", *kind, str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here ({done.stderr.strip()}); run as root to test full disks")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="session")
def command_server(ram: Path) -> Iterator[CommandServer]:
    """The real command, forked from a process that has imported and built everything."""
    from command_server import CommandServer

    with CommandServer(ram / "server") as started:
        yield started


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `pseudoris demo` on three scenes leaves (copy it before you change it), and the figures it prints, as JSON."""
    from invoking import invoke

    folder = tmp_path_factory.mktemp("demo")
    done = invoke("demo", "--scenes", "3", "--out", folder, "--json", "--quiet")
    assert done.code == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="session")
def vlm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the real `transformers serve` with the tiny vision-language model."""
    from vlm_server import transformers_serve

    with transformers_serve(tmp_path_factory.mktemp("serve")) as url:
        yield url


@pytest.fixture
def vlm_proxy(vlm_server: str) -> Iterator[Proxy]:
    """A proxy in front of it that misbehaves on demand."""
    from vlm_proxy import misbehaving

    with misbehaving(vlm_server) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def logits_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server around the same model that gives log-probabilities and holds answers to a schema."""
    from vlm_server import logits_server

    with logits_server(tmp_path_factory.mktemp("logits")) as url:
        yield url
