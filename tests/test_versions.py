"""What makes another version of which stage: every setting, every checkpoint's bytes, the device's kind; and what does not."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from invoking import draw_pictures, invoke, rows_of
from safetensors.numpy import save_file

from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.pipeline.chain import versions
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.settings.trees import leaves
from pseudoris_cli.storage.stage_table import ALWAYS as NAMES
from pseudoris_cli.storage.workspace import Workspace
from pseudoris_cli.weights import registry

CONFIG = Path("configs/random.yaml")
FIRST_OF = {
    "masks": "masks",
    "numerics": "masks",
    "captions": "captions",
    "filter": "filter",
    "export": "export",
    **{
        f"filter.{name}": "scores"
        for name in ("scorer", "nouns", "prompt_style", "crop_style", "clamp", "doc_cap", "image_batch")
    },
}
"""Section or setting -> the first stage that depends on it; all later ones follow."""
NO_RESULT = {
    "source.part_size": "how images are cut is in the plan",
    "source.decode_threads": "images are the same however they are read",
    "source.decode_ahead": "likewise",
    "source.part_timeout": "it ends a run",
    "export.dataset": "a name of the files",
    "export.split_by": "a name of the files",
    "export.segmentation": "how files are written",
    "export.sentences": "how files are written",
    "export.shard_mb": "how files are written",
}
"""Settings that are in no version, and why."""
ELSEWHERE = ("filter.decisions",)
"""A file whose content counts (tests/stages/test_filter_decisions.py)."""
OTHER_VALUES: dict[str, Any] = {
    "numerics.precision": "bf16",
    "masks.sam.model": "vit_b",
    "masks.proposals.model": "r50_fpn",
    "captions.model": "coca_ViT-B-32",
    "filter.scorer.model": "RN101",
    "masks.sam.checkpoint": "random:1",
    "masks.proposals.checkpoint": "random:1",
    "captions.checkpoint": "random:1",
    "filter.scorer.checkpoint": "random:1",
    "filter.nouns.pipeline": "demo",
    "masks.sam.channels": "bgr",
    "masks.proposals.channels": "bgr",
    "masks.sam.decoder": "official",
    "masks.match": "overlap",
    "captions.crop_style": "released",
    "captions.contrast_form": "scale_preserving",
    "captions.sampling": "device",
    "captions.top_k": [3],
    "captions.top_p": [0.3],
    "filter.nouns.rule": "released",
    "filter.prompt_style": "released",
    "filter.crop_style": "released",
    "filter.fallback": "best",
    "filter.one_mask_half": "candidates",
    "filter.scorer.pretrained": "openai",
    "filter.scorer.interpolation": "model",
    "filter.scorer.tokenizer": "somewhere",
    "export.split": "train=.5,val=.5",
    "export.dataset": "mine",
    "export.split_by": "me",
    "export.segmentation": "rle",
    "export.sentences": "all",
}
BACKENDS = {
    "masks.sam.backend": None,
    "masks.proposals.backend": "none",
    "captions.backend": None,
    "filter.scorer.backend": None,
    "filter.nouns.backend": None,
    "filter.judge.backend": None,
}
"""Another backend of the role, where there is one of ours."""


def versions_with(*assignments: str) -> dict[str, str]:
    return versions(resolve(file=CONFIG, assignments=assignments).settings)


def other_value(name: str, value: Any) -> Any:
    """A valid value that is not the one given."""
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(value, bool):
        return not value
    if value is None:
        return 7
    if isinstance(value, int):
        return value + 1
    return value / 2 if isinstance(value, float) and value else 0.5


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [stage for stage in NAMES if before[stage] != after[stage]]


def stages_from(first: str) -> list[str]:
    return list(NAMES[NAMES.index(first) :])


SETTINGS = [name for name, _ in leaves(resolve(file=CONFIG).settings.model_dump(mode="json"))]


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in (*BACKENDS, *ELSEWHERE)])
def test_every_setting_is_in_the_versions_that_depend_on_it(name: str) -> None:
    value = dict(leaves(resolve(file=CONFIG).settings.model_dump(mode="json")))[name]
    after = versions_with(f"{name}={json.dumps(other_value(name, value))}")
    if name in NO_RESULT:
        assert changed(versions_with(), after) == [], NO_RESULT[name]
    else:
        first = FIRST_OF.get(name) or FIRST_OF.get(".".join(name.split(".")[:2])) or FIRST_OF[name.split(".")[0]]
        assert changed(versions_with(), after) == stages_from(first)


@pytest.mark.parametrize(("name", "value"), [pair for pair in BACKENDS.items() if pair[1]])
def test_another_backend_is_another_version(name: str, value: str) -> None:
    assert changed(versions_with(), versions_with(f"{name}={value}")) == stages_from("masks")


def test_no_setting_is_left_out_here() -> None:
    assert set(NO_RESULT) | set(BACKENDS) <= set(SETTINGS)
    assert set(OTHER_VALUES) <= set(SETTINGS)
    assert {name.split(".")[0] for name in SETTINGS} == set(Settings.model_fields)


# --- checkpoints ------------------------------------------------------------------------------------------------------

CHECKPOINTS = {
    "masks.sam.checkpoint": "masks",
    "masks.proposals.checkpoint": "masks",
    "captions.checkpoint": "captions",
    "filter.scorer.checkpoint": "scores",
}


def write_tensor(path: Path, seed: int) -> Path:
    save_file({"weight": np.random.default_rng(seed).standard_normal(64).astype(np.float32)}, path)
    return path


@pytest.mark.parametrize(("setting", "first"), CHECKPOINTS.items())
def test_other_bytes_under_the_same_path_are_another_version(setting: str, first: str, tmp_path: Path) -> None:
    path = write_tensor(tmp_path / "weights.safetensors", 0)
    before = versions_with(f"{setting}={path}")
    again = versions_with(f"{setting}={path}")
    assert again == before
    write_tensor(path, 1)
    assert changed(before, versions_with(f"{setting}={path}")) == stages_from(first)
    moved = path.rename(tmp_path / "elsewhere.safetensors")
    write_tensor(moved, 0)
    assert versions_with(f"{setting}={moved}")[first] != before[first], "the name of a checkpoint is recorded with it"


def test_another_pipeline_folder_is_another_version(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text('{"name": "a"}')
    before = versions_with(f"filter.nouns.pipeline={tmp_path}")
    (tmp_path / "meta.json").write_text('{"name": "b"}')
    assert changed(before, versions_with(f"filter.nouns.pipeline={tmp_path}")) == stages_from("scores")


def test_other_bytes_of_the_same_size_and_mtime_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ctime gives a file away: no program can set that back. Of images only size and mtime are looked at."""
    monkeypatch.setattr(registry, "_SETTLED_SECONDS", -1.0)  # cached at once, so that the key of the cache decides
    path = tmp_path / "weights.bin"
    path.write_bytes(b"a" * 100)
    os.utime(path, ns=(10**18, 10**18))
    first = registry.file_digest(path)
    monkeypatch.setattr(registry, "read_digest", lambda path: pytest.fail("it was read again"))
    assert registry.file_digest(path) == first
    monkeypatch.undo()
    time.sleep(0.05)  # file systems count ctime in steps of some milliseconds
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(10**18, 10**18))
    assert path.stat().st_size == 100
    assert registry.file_digest(path) == hashlib.sha256(b"b" * 100).hexdigest() != first


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def as_if(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the CPU pass for another kind of device where the manifest records it."""

    def pretend(kind: str) -> None:
        monkeypatch.setattr("pseudoris_cli.execution.tasks.ImageStage.device_kind", lambda self: kind)

    return pretend


def test_the_device_and_what_it_resolves_are_recorded(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    common = ("--work", tmp_path / "work", "--config", CONFIG, "--device", "cpu", "-q")
    assert invoke("run", "--images", tmp_path / "images", *common).code == 0
    for stage in ("masks", "captions", "scores"):
        [entry] = Workspace(tmp_path / "work").latest(stage).manifest().entries.values()
        assert entry.notes["device"] == "cpu"
    [entry] = Workspace(tmp_path / "work").latest("masks").manifest().entries.values()
    assert entry.notes["resolved"] == {"decoder": "lowrank", "prompt_chunk": 4}
    [entry] = Workspace(tmp_path / "work").latest("filter").manifest().entries.values()
    assert "device" not in entry.notes


def test_rows_of_two_kinds_of_device_do_not_share_a_version_unnoticed(
    tmp_path: Path, as_if: Callable[[str], None]
) -> None:
    draw_pictures(tmp_path / "images", 1)
    common = ("masks", "--work", tmp_path / "work", "--config", CONFIG, "--device", "cpu", "-q")
    assert invoke(*common, "--images", tmp_path / "images", "--set", "source.part_size=1").code == 0
    draw_pictures(tmp_path / "images", 1, first=1)
    as_if("cuda")
    refused = invoke(*common)
    assert refused.code == 2
    assert "made on cpu, this run works on cuda" in refused.stderr
    assert "--mix-devices" in refused.stderr
    assert {row["image_key"] for row in rows_of(tmp_path / "work", "masks")} == {"000.png"}
    assert invoke(*common, "--mix-devices").code == 0
    devices = [e.notes["device"] for e in Workspace(tmp_path / "work").latest("masks").manifest().entries.values()]
    assert sorted(devices) == ["cpu", "cuda"]


def test_nothing_to_do_needs_no_device(tmp_path: Path, as_if: Callable[[str], None]) -> None:
    draw_pictures(tmp_path / "images", 1)
    common = ("masks", "--work", tmp_path / "work", "--config", CONFIG, "--device", "cpu", "-q")
    assert invoke(*common, "--images", tmp_path / "images").code == 0
    as_if("cuda")
    assert "nothing to do" in invoke(*common).stdout


def test_the_notice_that_no_gpu_was_found_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    request = DeviceRequest()
    with caplog.at_level("WARNING", "pseudoris"):
        assert request.resolve() == request.resolve(silent=True) == "cpu"
    assert sum("no GPU found" in record.message for record in caplog.records) <= 1
