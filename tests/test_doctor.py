"""What `doctor` finds, as data."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest
import torch

from pseudoris_cli.doctor import checks as doctor
from pseudoris_cli.doctor.checks import Check, examine
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.settings.models import Settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def by_name(checks: list[Check]) -> dict[str, Check]:
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.next_step for check in checks if check.status != "ok")
    return {check.name: check for check in checks}


def tiny(**more: object) -> Settings:
    """Settings that need no file."""
    return Settings.model_validate(
        {
            "masks": {
                "sam": {"backend": "sam", "model": "tiny", "checkpoint": "random:0"},
                "proposals": {"backend": "cascade_rcnn", "model": "tiny", "checkpoint": "random:0"},
            },
            "captions": {"backend": "coca", "model": "tiny", "checkpoint": "random:0"},
            "filter": {
                "scorer": {"backend": "clip", "model": "tiny", "checkpoint": "random:0"},
                "nouns": {"backend": "nouns", "pipeline": "blank"},
            },
            **more,
        }
    )


def test_every_missing_checkpoint_of_a_profile_is_named_with_its_command(tmp_path: Path) -> None:
    checks = by_name(examine(Settings(), tmp_path, DeviceRequest(device="cpu")))
    expected = {
        "masks.sam.checkpoint": "sam_vit_h",
        "masks.proposals.checkpoint": "cutler_cascade",
        "captions.checkpoint": "coca_cc3m",
        "filter.scorer.checkpoint": "clip_rn50",
        "filter.nouns.pipeline": "en_core_web_lg",
    }
    for setting, name in expected.items():
        assert checks[setting].status == "fail", setting
        assert checks[setting].next_step.endswith(f"pseudoris weights fetch {name}")


def test_found_checkpoints_are_ok_and_random_ones_are_remarked(tmp_path: Path) -> None:
    settings = tiny(captions={"backend": "coca", "model": "tiny", "checkpoint": str(tmp_path / "c.pt")})
    (tmp_path / "c.pt").write_bytes(b"x")
    checks = by_name(examine(settings, tmp_path, DeviceRequest(device="cpu")))
    assert checks["captions.checkpoint"] == Check(
        "captions.checkpoint", "ok", f"{tmp_path / 'c.pt'}: {tmp_path / 'c.pt'}"
    )
    assert checks["masks.sam.checkpoint"].status == "warn"
    assert "random weights" in checks["masks.sam.checkpoint"].detail
    assert checks["filter.nouns.pipeline"].status == "warn"
    assert not [check for check in checks.values() if check.status == "fail"]


def test_this_torch_fits_and_a_misfit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert by_name(examine(tiny(), tmp_path))["torch"].status == "ok"

    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torch.ops.torchvision, "nms", broken)
    found = by_name(examine(tiny(), tmp_path))["torch"]
    assert found.status == "fail"
    assert "torchvision::nms does not exist" in found.detail


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    request = DeviceRequest(gpu=torch.cuda.device_count() + 7)
    checks = by_name(examine(tiny(), tmp_path, request))
    assert checks["device"].status == "fail"
    assert "numerics" not in checks


def test_memory_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings()

    def plan(gigabytes: float, settings: Settings = settings) -> dict[str, Check]:
        monkeypatch.setattr(doctor, "_memory_of", lambda _: gigabytes * 1e9)
        return by_name(list(doctor._check_memory(settings, "cuda:0")))

    large, small = plan(141), plan(6)
    assert list(large) == ["memory: masks", "memory: captions", "memory: scores"]
    assert all(check.status == "ok" for check in large.values())
    assert "of 141.0 GB: weights 2.85, " in large["memory: masks"].detail, "ViT-H and R50-FPN in fp32"

    def most(check: Check, setting: str) -> int:
        return int(check.detail.split(f"{setting} ")[1].split(",")[0])

    for stage, setting in (
        ("masks", "masks.image_batch"),
        ("masks", "masks.sam.prompt_chunk"),
        ("captions", "captions.row_chunk"),
        ("captions", "captions.image_batch"),
    ):
        assert most(large[f"memory: {stage}"], setting) > 16
    assert small["memory: masks"].status == "warn"
    assert "--set masks.sam.prompt_chunk=" in small["memory: masks"].next_step
    fitting = int(small["memory: masks"].next_step.split("prompt_chunk=")[1].split(",")[0])
    assert plan(6, tiny_changed(settings, fitting))["memory: masks"].status == "ok", "what it advises fits"
    nothing = plan(0.7)["memory: masks"]
    assert "numerics.precision=bf16" in nothing.next_step


def tiny_changed(settings: Settings, chunk: int) -> Settings:
    sam = settings.masks.sam.model_copy(update={"prompt_chunk": chunk})
    return settings.model_copy(update={"masks": settings.masks.model_copy(update={"sam": sam})})


def test_a_backend_that_does_not_tell_its_memory_is_named(tmp_path: Path) -> None:
    proposals = {"backend": "sam3_concepts", "checkpoint": "random:0", "concepts": ["dog"]}
    settings = tiny(captions={"backend": "captioner_hf", "model": "nobody/nothing"}, masks={"proposals": proposals})
    checks = by_name(examine(settings, tmp_path, DeviceRequest(device="cpu")))
    assert checks["memory: captions"].detail.startswith(
        "not known of captions.backend=captioner_hf (the model 'nobody/nothing' is not here"
    )
    assert checks["memory: masks"].detail == "not known of masks.proposals.backend=sam3_concepts"
    assert checks["memory: scores"].detail.startswith("0.")


def test_numerics_in_effect(tmp_path: Path) -> None:
    checks = by_name(examine(tiny(), tmp_path, DeviceRequest(device="cpu")))
    assert checks["numerics"] == Check("numerics", "ok", "fp32, TF32 off, compile off")
    slow = tiny(numerics={"precision": "bf16"})
    assert by_name(examine(slow, tmp_path, DeviceRequest(device="cpu")))["numerics"].status == "warn"


def test_the_work_directory_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(tmp_path.rglob("*"))
    checks = by_name(examine(tiny(), tmp_path / "not" / "yet", DeviceRequest(device="cpu")))
    assert checks["locks"] == Check("locks", "ok", f"flock works in {tmp_path}")
    assert sorted(tmp_path.rglob("*")) == before

    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    assert by_name(examine(tiny(), tmp_path))["disk"].status == "warn"

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    found = by_name(examine(tiny(), tmp_path))["locks"]
    assert found.status == "fail"
    assert "No locks available" in found.detail


def test_few_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 8192))
    assert by_name(examine(tiny(), tmp_path))["open files"] == Check(
        "open files", "warn", "at most 256", "ulimit -n 4096"
    )


def test_both_folders_are_tried_for_all_that_a_run_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("rename", "fsync", "links", "case")
    checks = by_name(examine(tiny(), tmp_path / "work", out=tmp_path / "out" / "deep"))
    assert all(checks[name].status == checks[f"out: {name}"].status == "ok" for name in names)
    assert checks["append"].status == checks["locks"].status == "ok"
    assert not [path for path in tmp_path.iterdir() if "trial" in path.name or path.name in ("work", "out")]

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    for module, call, name, work, out in (
        (os, "replace", "rename", "fail", "fail"),
        (os, "symlink", "links", "warn", "warn"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, call, refuse)
            checks = by_name(examine(tiny(), tmp_path / "work", out=tmp_path / "out"))
        assert (checks[name].status, checks[f"out: {name}"].status) == (work, out)
        assert "out: locks" not in checks
        assert "Operation not permitted" in checks[name].detail
        assert checks[name].next_step
    (tmp_path / "file").write_text("x")
    broken = by_name(examine(tiny(), tmp_path / "work", out=tmp_path / "file" / "out"))["out: write"]
    assert (broken.status, "it is a file, not a folder" in broken.detail) == ("fail", True)
