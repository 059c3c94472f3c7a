"""Reading checkpoint files without running code from them."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pseudoris_cli.errors import Interrupted, UsageError
from pseudoris_cli.weights.tensors import load_tensors


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
