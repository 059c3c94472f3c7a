"""Checkpoints: resolving what a user wrote, remembering digests, reading files without running code."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub.constants
import pytest
import yaml

from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.resources import resource
from pseudoris_cli.weights import registry as weights
from pseudoris_cli.weights.registry import Entry, HubFile


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_random_weights() -> None:
    found = weights.resolve("random:17")
    assert (found.path, found.seed, found.digest) == (None, 17, "random:17")
    for value in ("random:", "random:x", "random:-1", "random:1.5"):
        with pytest.raises(UsageError, match="random:SEED"):
            weights.resolve(value)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.pth").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for value in ("my.pth", "./my.pth", "~/my.pth", str(tmp_path / "my.pth")):
        found = weights.resolve(value)
        assert found.path == tmp_path / "my.pth"
        assert found.path.is_absolute()
        assert (found.name, found.digest) == (value, digest_of(b"abc"))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ("", UsageError, "empty"),
        (".", UsageError, "is a folder"),
        ("~nobody-of-that-name/x.pth", UsageError, "~nobody"),
        ("no/such/file.pth", MissingDependency, "neither a registered name nor a file"),
        ("a" * 5000, MissingDependency, "File name too long"),
        ("en_core_web_lg", UsageError, "filter.nouns.pipeline"),
    ],
)
def test_what_is_no_checkpoint(value: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        weights.resolve(value)


def test_a_missing_registered_checkpoint_names_file_place_and_command(home: Path) -> None:
    with pytest.raises(MissingDependency) as caught:
        weights.resolve("sam_vit_h")
    text = str(caught.value)
    assert str(home / "sam_vit_h_4b8939.pth") in text
    assert "pseudoris weights fetch sam_vit_h" in text
    assert caught.value.exit_code == 3


def test_a_registered_name_stands_for_the_published_file_only(home: Path) -> None:
    path = home / "sam_vit_b_01ec64.pth"
    path.write_bytes(b"something else")
    with pytest.raises(UsageError, match="is not the file that 'sam_vit_b' stands for"):
        weights.resolve("sam_vit_b")
    assert weights.resolve(str(path)).digest == digest_of(b"something else")


def test_a_recorded_digest_binds(home: Path) -> None:
    path = home / "cutler_cascade_final.pth"
    path.write_bytes(b"first")
    assert weights.resolve("cutler_cascade").digest == digest_of(b"first")
    (home / "cutler_cascade_final.pth.sha256").write_text(f"{digest_of(b'other')}  cutler_cascade_final.pth\n")
    with pytest.raises(UsageError, match="fetch it again"):
        weights.resolve("cutler_cascade")


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "x.pth").write_bytes(b"abc")
    monkeypatch.setattr(weights, "read_digest", refuse)
    with pytest.raises(MissingDependency, match="cannot be read: Permission denied"):
        weights.resolve(str(tmp_path / "x.pth"))


def hub_file(root: Path, repo: str, commit: str, file: str, main: bool = True) -> Path:
    """A file in the cache of the Hugging Face hub, laid out as huggingface_hub does."""
    folder = root / "hub" / f"models--{repo.replace('/', '--')}"
    path = folder / "snapshots" / commit / file
    path.parent.mkdir(parents=True)
    path.write_bytes(commit.encode())
    if main:
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    return path


def test_hub_entries_are_found_in_the_hubs_cache_or_the_weights_folder(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = Entry(file="p.bin", hub=HubFile(repo="org/name", file="a/p.bin", revision="c" * 40))
    newest = Entry(file="n.bin", hub=HubFile(repo="org/other", file="n.bin"))
    monkeypatch.setattr(weights, "registry", lambda: {"pinned": pinned, "newest": newest})
    with pytest.raises(MissingDependency, match="org/name in the cache of the Hugging Face hub"):
        weights.resolve("pinned")
    path = hub_file(tmp_path, "org/name", "c" * 40, "a/p.bin", main=False)
    assert weights.resolve("pinned").path == path
    assert str(path) == huggingface_hub.try_to_load_from_cache("org/name", "a/p.bin", revision="c" * 40)
    path = hub_file(tmp_path, "org/other", "d" * 40, "n.bin")
    assert weights.resolve("newest").path == path
    assert str(path) == huggingface_hub.try_to_load_from_cache("org/other", "n.bin")
    (home / "p.bin").write_bytes(b"copied by hand")
    assert weights.resolve("pinned").path == home / "p.bin"


def test_open_clip_tags(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependency, match=r"weights fetch coca_laion2b$"):
        weights.resolve("laion2B-s13B-b90k", model="coca_ViT-L-14")  # as open_clip spelled it once
    with pytest.raises(MissingDependency, match="neither a registered name"):
        weights.resolve("laion2b_s13b_b90k")  # a tag means nothing without its model
    with pytest.raises(MissingDependency, match="neither a registered name"):
        weights.resolve("no_such_tag", model="coca_ViT-L-14")
    repo = "laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k"
    with pytest.raises(MissingDependency, match=f"hf download {repo} open_clip_pytorch_model.bin"):
        weights.resolve("mscoco_finetuned_laion2b_s13b_b90k", model="coca_ViT-L-14")
    path = hub_file(tmp_path, repo, "e" * 40, "open_clip_pytorch_model.bin")
    found = weights.resolve("mscoco_finetuned_laion2b_s13b_b90k", model="coca_ViT-L-14")
    assert (found.path, found.digest) == (path, digest_of(b"e" * 40))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if every file had been written long ago."""
    monkeypatch.setattr(weights, "_SETTLED_SECONDS", -1e9)


def test_digests_are_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: None
) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    reads: list[Path] = []
    read = weights.read_digest
    monkeypatch.setattr(weights, "read_digest", lambda path: reads.append(path) or read(path))
    assert weights.file_digest(path) == weights.file_digest(path) == digest_of(b"one")
    assert len(reads) == 1
    path.write_bytes(b"two")
    os.utime(path, (1e9 + 5, 1e9 + 5))
    assert weights.file_digest(path) == digest_of(b"two")
    assert len(reads) == 2


def test_what_was_just_written_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under equal times and size another change could still hide: times are counted in steps."""
    path = tmp_path / "x.bin"
    path.write_bytes(b"six")
    os.utime(path, (1e9, 1e9))  # its ctime is of now
    reads: list[Path] = []
    read = weights.read_digest
    monkeypatch.setattr(weights, "read_digest", lambda path: reads.append(path) or read(path))
    assert weights.file_digest(path) == weights.file_digest(path) == digest_of(b"six")
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["unwritable", "nonsense"])
def test_a_useless_digest_cache_only_costs_time(tmp_path: Path, damage: str, settled: None) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    if damage == "unwritable":
        (tmp_path / "cache").write_text("not a folder")
    else:
        weights.file_digest(path)
        (memo,) = (tmp_path / "cache" / "pseudoris" / "digests").iterdir()
        memo.write_text("half a dig")
    assert weights.file_digest(path) == digest_of(b"one")


def test_many_threads_may_remember_at_once(tmp_path: Path, settled: None) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
    threads = [threading.Thread(target=lambda: [weights.file_digest(path) for path in paths]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = list((tmp_path / "cache" / "pseudoris" / "digests").iterdir())
    assert sorted(memo.read_text() for memo in kept) == sorted(digest_of(path.name.encode()) for path in paths)


def test_resolving_imports_no_torch(tmp_path: Path) -> None:
    hub_file(tmp_path, "laion/CoCa-ViT-L-14-laion2B-s13B-b90k", "x", "open_clip_pytorch_model.bin")
    code = (
        "import sys; from pseudoris_cli.weights import registry as weights\n"
        "try: weights.resolve('laion2b_s13b_b90k', model='coca_ViT-L-14')\n"
        "except Exception as error: print(type(error).__name__)\n"
        "print([name for name in ('torch', 'open_clip', 'httpx', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["MissingDependency", "[]"]


def test_the_shipped_registry_is_sound() -> None:
    raw = yaml.safe_load(resource("third_party/weights.yaml").read_text(encoding="utf-8"))["weights"]
    assert {"sam_vit_h", "sam_vit_l", "sam_vit_b", "cutler_cascade", "coca_cc3m", "clip_rn50"} <= set(raw)
    files = [entry["file"] for entry in raw.values() if entry.get("file")]
    assert len(files) == len(set(files))
    for name, entry in weights.registry().items():
        assert set(raw[name]) <= set(Entry.model_fields), name
        if entry.embedded:
            continue
        assert entry.purpose, name
        assert entry.licence, name
        assert entry.digest_source, name
        assert Path(entry.file).name == entry.file, name
        assert [bool(entry.url), bool(entry.hub), bool(entry.hub_folder)].count(True) == 1, name
        assert entry.commercial != "unknown", name
        assert entry.rule or entry.commercial == "yes", name
        assert entry.url is None or entry.url.startswith("https://"), name
        assert entry.sha256 is None or (re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.size), name
        assert entry.hub is None or entry.hub.revision is None or re.fullmatch("[0-9a-f]{40}", entry.hub.revision)
