"""Checkpoints: resolving what a user wrote, remembering digests, reading files without running code."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import yaml

from pseudoris_cli.errors import Interrupted, MissingDependency, UsageError
from pseudoris_cli.models import weights
from pseudoris_cli.models.tensors import load_tensors
from pseudoris_cli.models.weights import Entry, HubFile
from pseudoris_cli.resources import resource


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
    assert "random:0" in text
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
    with pytest.raises(MissingDependency, match="weights fetch coca_laion2b\n"):
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


def test_digests_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    reads: list[Path] = []
    read = weights.read_digest
    monkeypatch.setattr(weights, "read_digest", lambda path: reads.append(path) or read(path))
    assert weights.file_digest(path) == weights.file_digest(path) == digest_of(b"one")
    assert len(reads) == 1
    path.write_bytes(b"two")
    os.utime(path, (1e9 + 5, 1e9 + 5))
    assert weights.file_digest(path) == digest_of(b"two")
    path.write_bytes(b"six")  # just written: the same size and time could still hide another change
    weights.file_digest(path)
    weights.file_digest(path)
    assert len(reads) == 4


@pytest.mark.parametrize("damage", ["unwritable", "nonsense"])
def test_a_useless_digest_cache_only_costs_time(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"one")
    os.utime(path, (1e9, 1e9))
    if damage == "unwritable":
        (tmp_path / "cache").write_text("not a folder")
    else:
        weights.file_digest(path)
        (memo,) = (tmp_path / "cache" / "pseudoris" / "digests").iterdir()
        memo.write_text("half a dig")
    assert weights.file_digest(path) == digest_of(b"one")


def test_many_threads_may_remember_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.bin" for number in range(20)]
    for path in paths:
        path.write_bytes(path.name.encode())
        os.utime(path, (1e9, 1e9))
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
        "import sys; from pseudoris_cli.models import weights\n"
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
        assert bool(entry.url) != bool(entry.hub), name
        assert entry.url is None or entry.url.startswith("https://"), name
        assert entry.sha256 is None or (re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.size), name
        assert entry.hub is None or entry.hub.revision is None or re.fullmatch("[0-9a-f]{40}", entry.hub.revision)


@pytest.mark.parametrize("legacy", [False, True])
def test_reads_torch_files(tmp_path: Path, legacy: bool) -> None:
    data = {"model": {"a": torch.arange(6.0).reshape(2, 3)}, "iteration": 3}
    torch.save(data, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    read = load_tensors(tmp_path / "x.pth")
    assert read["iteration"] == 3
    assert torch.equal(read["model"]["a"], data["model"]["a"])


@pytest.mark.parametrize("package", ["numpy.core", "numpy._core"])
def test_reads_numpy_values_written_by_any_numpy(tmp_path: Path, package: str) -> None:
    """fvcore's checkpoints may hold arrays, under the module names of the numpy that wrote them."""
    kinds = [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_]
    arrays = {np.dtype(kind).name: np.array([[1, 0, 3]], dtype=kind) for kind in kinds}
    torch.save({"model": arrays, "lr": np.float64(0.1)}, tmp_path / "new.pth")
    with zipfile.ZipFile(tmp_path / "new.pth") as source, zipfile.ZipFile(tmp_path / "x.pth", "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                assert b"multiarray" in data
                data = re.sub(rb"numpy\._?core\.multiarray", f"{package}.multiarray".encode(), data)
            target.writestr(name, data)
    read = load_tensors(tmp_path / "x.pth")
    assert read["lr"] == 0.1
    for name, array in arrays.items():
        assert read["model"][name].dtype == array.dtype
        assert np.array_equal(read["model"][name], array)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_tensors_of_a_zip_file_stay_on_the_disk(tmp_path: Path) -> None:
    """The optimizer's state in a training checkpoint must not cost memory."""
    torch.save({"optimizer": torch.zeros(1 << 20)}, tmp_path / "x.pth")
    tensor = load_tensors(tmp_path / "x.pth")["optimizer"]
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(first, 16) <= address < int(last, 16):
            assert line.endswith(str(tmp_path / "x.pth"))
            break
    else:
        pytest.fail("the tensor lies nowhere")


def test_reads_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    assert torch.equal(load_tensors(tmp_path / "x.safetensors")["a"], torch.ones(3))


class _Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("exit 1",)


def test_refuses_code(tmp_path: Path) -> None:
    torch.save({"a": _Hostile()}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"it asks for posix\.system|it asks for nt\.system"):
        load_tensors(tmp_path / "x.pth")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(tmp_path / "x.pt"))
    with pytest.raises(UsageError, match="TorchScript"):
        load_tensors(tmp_path / "x.pt")


def test_refuses_objects_hidden_in_numpy_arrays(tmp_path: Path) -> None:
    torch.save({"a": np.array([_Hostile()], dtype=object)}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="not a plain checkpoint"):
        load_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.pth", b"", "is empty"),
        ("x.pth", b"\n <!DOCTYPE html><html>404", "is a web page"),
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        ("x.pth", b"PK\x03\x04 and then nothing", "is cut short"),
        ("x.pth", b"hello world", "not a plain checkpoint"),
        ("x.safetensors", b"hello world", "not a safetensors file"),
        ("x.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      \x00", "not a safetensors file"),
    ],
)
def test_names_what_a_failed_download_left(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        load_tensors(tmp_path / name)


def test_a_truncated_torch_file(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes((tmp_path / "x.pth").read_bytes()[:2000])
    with pytest.raises(UsageError, match="is cut short"):
        load_tensors(tmp_path / "x.pth")


def test_what_is_no_mapping(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "x.pth")
    with pytest.raises(UsageError, match="holds a list"):
        load_tensors(tmp_path / "x.pth")
    with pytest.raises(UsageError, match="cannot be read"):
        load_tensors(tmp_path / "none.pth")


def test_an_interrupt_while_reading_stays_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise Interrupted("stop")

    (tmp_path / "x.pth").write_bytes(b"legacy")
    monkeypatch.setattr(torch, "load", stop)
    with pytest.raises(Interrupted):
        load_tensors(tmp_path / "x.pth")
