"""Registered checkpoints: fetch, verify, list; the commands around them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from flaky_server import Answer, FlakyServer, serve
from invoking import invoke
from typer.testing import CliRunner

from pseudoris_cli.cli.weights_commands import app
from pseudoris_cli.errors import EnvironmentStop, MissingDependency, UsageError
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.weights import fetch
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.download import Reporter, RetryPolicy
from pseudoris_cli.weights.registry import Entry

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(timeout=1, attempts=2, pause=0.001)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder."""
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "weights"


def register(monkeypatch: pytest.MonkeyPatch, **entries: Entry) -> None:
    monkeypatch.setattr(weights, "registry", lambda: entries)


def published(server: FlakyServer, content: bytes = CONTENT) -> Entry:
    digest = hashlib.sha256(content).hexdigest()
    return Entry(file="w.pth", url=f"{server.url}/w.pth", size=len(content), sha256=digest)


def test_fetches_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONTENT) as server:
        register(monkeypatch, w=published(server))
        assert fetch.fetch("w", retry=QUICK) == home / "w.pth"
        assert fetch.fetch("w", retry=QUICK) == home / "w.pth"
    assert len(server.requests) == 1
    assert weights.resolve("w").digest == DIGEST
    assert fetch.verify("w").state == "ok"
    assert not (home / "w.pth.sha256").exists()


def test_a_damaged_file_is_fetched_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    home.mkdir()
    (home / "w.pth").write_bytes(CONTENT[::-1])
    with serve(CONTENT) as server:
        register(monkeypatch, w=published(server))
        assert fetch.verify("w").state == "wrong"
        fetch.fetch("w", Reporter(notice=notices.append), QUICK)
    assert fetch.verify("w").state == "ok"
    assert "damaged" in notices[0]


def test_verify_trusts_no_memory(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONTENT) as server:
        register(monkeypatch, w=published(server))
        path = fetch.fetch("w", retry=QUICK)
    stat = path.stat()
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time: only reading tells
    assert fetch.verify("w").state == "wrong"


def test_a_first_fetch_records_the_digest_and_later_ones_compare(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONTENT) as server:
        register(monkeypatch, w=Entry(file="w.pth", url=f"{server.url}/w.pth"))
        fetch.fetch("w", retry=QUICK)
        assert (home / "w.pth.sha256").read_text() == f"{DIGEST}  w.pth\n"
        assert fetch.verify("w").state == "ok"
        (home / "w.pth").unlink()
        server.content = CONTENT[::-1]
        with pytest.raises(MissingDependency, match=DIGEST):
            fetch.fetch("w", retry=QUICK)
    assert not (home / "w.pth").exists()


def test_a_file_that_somebody_copied_in_has_no_digest_to_compare(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, w=Entry(file="w.pth", url="http://127.0.0.1:9/w.pth"))
    assert fetch.verify("w").state == "missing"
    home.mkdir()
    (home / "w.pth").write_bytes(CONTENT)
    assert fetch.fetch("w") == home / "w.pth"
    assert fetch.verify("w").state == "unrecorded"


def test_two_fetches_do_not_collide(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is told who is at work; after the first it finds the file and asks the server nothing."""
    begun, refused = threading.Event(), []
    with serve(CONTENT) as server:
        register(monkeypatch, w=published(server))

        def progress(done: int, total: int | None) -> None:
            if not begun.is_set():
                begun.set()
                with pytest.raises(EnvironmentStop, match="in use by pid") as caught:
                    fetch.fetch("w", retry=QUICK)
                refused.append(str(caught.value))

        fetch.fetch("w", Reporter(progress), QUICK)
        fetch.fetch("w", retry=QUICK)
    assert len(refused) == 1
    assert "fetching w" in refused[0]
    assert len(server.requests) == 1


def test_a_read_only_folder_serves_what_it_has(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared weights folder: no lock is taken where nothing is missing."""
    home.mkdir()
    (home / "w.pth").write_bytes(CONTENT)
    register(monkeypatch, w=Entry(file="w.pth", sha256=DIGEST, url="http://127.0.0.1:9/w.pth"))
    with exclusive(home / ".w.pth.lock", "somebody else"):
        assert fetch.fetch("w") == home / "w.pth"


def test_the_weights_folder_cannot_be_made(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write_text("a file")
    register(monkeypatch, w=Entry(file="w.pth", url="http://127.0.0.1:9/w.pth"))
    with pytest.raises(EnvironmentStop, match="PSEUDORIS_WEIGHTS"):
        fetch.fetch("w")


def test_names_and_addresses_that_are_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, w=Entry(file="w.pth", note="Ask its authors."))
    with pytest.raises(UsageError, match="registered:  w"):
        fetch.fetch("v")
    with pytest.raises(UsageError, match="Ask its authors"):
        fetch.fetch("w")


def wheel(name: str = "en_tiny_lg-1.0") -> bytes:
    """A spaCy pipeline's wheel in miniature."""
    package = name.partition("-")[0]
    files = {f"{package}/{name}/meta.json": b"{}", f"{package}/{name}/config.cfg": b"[nlp]\n"}
    lines = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(data)}")
    files[f"{name}.dist-info/RECORD"] = "\n".join([*lines, f"{name}.dist-info/RECORD,,"]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return out.getvalue()


def test_a_pipeline_is_unpacked_and_verified_file_by_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = wheel()
    with serve(data) as server:
        entry = published(server, data).model_copy(
            update={"file": "en_tiny_lg-1.0-any.whl", "pipeline": "en_tiny_lg/en_tiny_lg-1.0"}
        )
        register(monkeypatch, en_tiny_lg=entry)
        assert weights.pipeline_folder("en_tiny_lg") is None
        folder = fetch.fetch("en_tiny_lg", retry=QUICK)
        assert folder == home / "en_tiny_lg-1.0-any" / "en_tiny_lg" / "en_tiny_lg-1.0"
        assert weights.pipeline_folder("en_tiny_lg") == folder
        assert fetch.verify("en_tiny_lg").state == "ok"
        assert {path.name for path in home.iterdir()} == {"en_tiny_lg-1.0-any", ".en_tiny_lg-1.0-any.whl.lock"}
        (folder / "config.cfg").write_text("[nlp]\nlang = 'de'\n")
        verdict = fetch.verify("en_tiny_lg")
        assert verdict.state == "wrong"
        assert "config.cfg" in verdict.detail
        fetch.fetch("en_tiny_lg", retry=QUICK)
        assert fetch.verify("en_tiny_lg").state == "ok"
    assert len(server.requests) == 2
    with pytest.raises(UsageError, match="is a spaCy pipeline"):
        weights.resolve("en_tiny_lg")


_HUB = """
import sys, hashlib
from huggingface_hub import try_to_load_from_cache
from pseudoris_cli.errors import PseudorisError
from pseudoris_cli.weights import fetch, registry as weights
from pseudoris_cli.weights.registry import Entry, HubFile
for order in sys.argv[1:]:
    file, _, digest = order.partition(":")
    entry = Entry(file=file, hub=HubFile(repo="org/name", file=file, revision="c" * 40), sha256=digest or None)
    weights.registry = lambda: {"h": entry}
    try:
        path = fetch.fetch("h")
        same = str(path) == try_to_load_from_cache("org/name", file, revision="c" * 40)
        print(weights.resolve("h").digest, weights.resolve("h").path == path, fetch.verify("h").state, same)
    except PseudorisError as error:
        print(type(error).__name__, " ".join(str(error).split()))
"""


def hub(server_url: str, tmp_path: Path, *orders: str, **extra: str) -> list[str]:
    """Fetch `file:digest`s from a hub at `server_url` in another process: huggingface_hub reads its settings once."""
    env = {**os.environ, "HF_ENDPOINT": server_url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", **extra}
    done = subprocess.run(
        [sys.executable, "-c", _HUB, *orders], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.splitlines()


def test_hub_files_stay_in_the_hubs_cache(home: Path, tmp_path: Path) -> None:
    with serve(CONTENT) as server:
        wrong, recorded, known = hub(server.url, tmp_path, f"w.bin:{'0' * 64}", "h.bin:", f"h.bin:{DIGEST}")
        asked = len(server.requests)
        missing, kept = hub(server.url, tmp_path, "other.bin:", f"h.bin:{DIGEST}", HF_HUB_OFFLINE="1")
    assert wrong.startswith("MissingDependency")
    assert "was not kept" in wrong
    assert not list((tmp_path / "hf").rglob("w.bin"))
    assert recorded == known == kept == f"{DIGEST} True ok True"
    assert (home / "h.bin.sha256").read_text() == f"{DIGEST}  h.bin\n"
    assert missing.startswith("EnvironmentStop")
    assert "HF_HUB_OFFLINE" in missing
    assert asked == len(server.requests)  # offline means offline
    assert [path[-6:] for path, _ in server.requests if path.startswith("/org/")] == ["/w.bin", "/h.bin"]


def test_rows_tell_what_is_here(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, a=Entry(file="a.pth", size=5, purpose="p", licence="MIT"), b=Entry(file="b.pth"))
    home.mkdir()
    (home / "b.pth").write_bytes(b"123")
    first, second = fetch.rows()
    assert (first.name, first.size, first.present, first.licence) == ("a", 5, False, "MIT")
    assert (second.name, second.size, second.present, second.path) == ("b", 3, True, home / "b.pth")


def test_the_shipped_registry_can_be_listed(home: Path) -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "--json"]).stdout)
    names = {row["name"] for row in listed}
    assert {"sam_vit_h", "sam_vit_l", "sam_vit_b", "cutler_cascade", "coca_cc3m", "clip_rn50"} <= names
    text = CliRunner().invoke(app, ["list"]).stdout
    assert "coca_laion2b" in text
    assert str(home) in text.replace("\n", "")


def test_commands(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CONTENT, Answer()) as server:
        register(monkeypatch, w=published(server))
        missing = CliRunner().invoke(app, ["verify", "w"])
        assert isinstance(missing.exception, MissingDependency)
        assert isinstance(CliRunner().invoke(app, ["fetch", "w", "nonsense"]).exception, UsageError)
        assert not server.requests  # names are checked before anything is fetched
        fetched = CliRunner().invoke(app, ["fetch", "w"])
        assert fetched.exit_code == 0
        assert fetched.stdout == f"w\t{home / 'w.pth'}\n"
        assert CliRunner().invoke(app, ["verify"]).stdout.startswith("w\tok\t")


def test_a_profile_names_what_it_needs_once() -> None:
    paper = fetch.needed(resolve("paper").settings)
    assert paper == ["sam_vit_h", "cutler_cascade", "coca_cc3m", "clip_rn50", "en_core_web_lg"]
    assert fetch.needed(resolve("fast").settings)[0] == "sam_vit_b"
    assert fetch.needed(resolve("random").settings) == fetch.needed(resolve("demo").settings) == []


def test_the_size_of_all_is_said_before_the_first_byte(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = b"others" * 3000
    with serve(CONTENT) as server, serve(other) as second:
        unsized = published(second, other).model_copy(update={"size": None, "file": "c.pth"})
        register(monkeypatch, sam_vit_h=published(server), cutler_cascade=unsized)
        done = invoke("weights", "fetch", "--profile", "paper")
        assert done.code == 0, done.stderr
        first = f"fetching 2: 7.0 kB, and cutler_cascade, whose size is not published; into {home}"
        assert done.stderr.splitlines()[0] == first
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == ["sam_vit_h", "cutler_cascade"]
        again = invoke("weights", "fetch", "--profile", "paper")
        assert again.stderr == "profile paper: all of its checkpoints are here\n"
    assert invoke("weights", "fetch", "--profile", "random").stderr == "profile random: it needs no checkpoint\n"
    nothing = invoke("weights", "fetch")
    assert (nothing.code, "--profile paper" in nothing.stderr) == (2, True)
