"""Shortage of memory and lost devices by every name that torch has for them, in each stage of the real command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from invoking import Outcome, draw_pictures, invoke

from pseudoris_cli.backends.automatic_masks import AutomaticSegmenter
from pseudoris_cli.decoding.engine import Decoder
from pseudoris_cli.errors import is_device_lost, is_out_of_memory
from pseudoris_cli.method import scoring
from pseudoris_cli.storage.workspace import Workspace


class AcceleratorError(RuntimeError):
    """Named as torch 2.8 and later name what a device reports."""


SHORTAGES = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 79.11 GiB"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.9 GB, other allocations: 50 MB, max allowed: 18.13 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
        "400000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    MemoryError(),
]
LOSSES = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
    AcceleratorError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUDA driver error: unknown error"),
    RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
]
NEITHER = [
    RuntimeError("The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1"),
    ValueError("out of memory of what was said"),
    KeyError("CUBLAS_STATUS_ALLOC_FAILED"),
]


def name(error: BaseException) -> str:
    return f"{type(error).__name__} {str(error)[:40]}"


@pytest.mark.parametrize("error", [*SHORTAGES, *LOSSES, *NEITHER], ids=name)
def test_every_error_is_told_apart(error: BaseException) -> None:
    assert is_out_of_memory(error) == (error in SHORTAGES)
    assert is_device_lost(error) == (error in LOSSES)


def test_the_cpu_allocator_really_says_so() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value), caught.value


def run(folder: Path) -> Outcome:
    return invoke(
        "run", "--images", folder / "images", "--work", folder / "work", "--config", "configs/random.yaml", "--device", "cpu",
        "--set", "captions.top_k=[5]", "--set", "captions.top_p=[]", "--set", "captions.max_length=5", "-q",
    )  # fmt: skip


def failing_when_several(work: Callable[..., Any], error: BaseException, of: int) -> Callable[..., Any]:
    """The call with an error for more than one image (argument number `of`)."""

    def call(*arguments: Any, **more: Any) -> Any:
        if len(arguments[of]) > 1:
            raise error
        return work(*arguments, **more)

    return call


@pytest.mark.parametrize("error", SHORTAGES, ids=name)
def test_a_shortage_halves_the_batch_in_every_stage(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(tmp_path / "images", 2)
    decode = Decoder._decode_batch

    def in_small_chunks(self: Decoder, groups: list[Any], chunk: int) -> Any:
        if chunk > 64:
            raise error
        return decode(self, groups, chunk)

    monkeypatch.setattr(AutomaticSegmenter, "segment", failing_when_several(AutomaticSegmenter.segment, error, 1))
    monkeypatch.setattr(Decoder, "_decode_batch", in_small_chunks)
    monkeypatch.setattr(scoring, "score_images", failing_when_several(scoring.score_images, error, 0))
    done = run(tmp_path)
    assert done.code == 0, done.stderr
    for stage, note in (("masks", "out_of_memory"), ("captions", "row_chunk_halved"), ("scores", "out_of_memory")):
        [entry] = Workspace(tmp_path / "work").latest(stage).manifest().entries.values()
        assert entry.notes[note] >= 1
        assert entry.counts == {"done": 2}


@pytest.mark.parametrize("error", LOSSES[:3], ids=name)
def test_a_lost_device_stops_the_run_and_blames_no_image(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(tmp_path / "images", 2)

    def lost(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(Decoder, "decode", lost)
    done = run(tmp_path)
    assert done.code == 1
    assert "the device stopped working" in done.stderr
    assert Workspace(tmp_path / "work").latest("masks").manifest().counts()["done"] == 2
    assert not Workspace(tmp_path / "work").latest("captions").manifest().entries
