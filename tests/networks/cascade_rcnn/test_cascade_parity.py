"""Our Cascade Mask R-CNN against recorded detectron2 outputs, through the benchmark that users run."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import locations
import numpy as np
import pytest
import torch
from PIL import Image

FIXTURES = locations.FIXTURES / "cutler"


@pytest.fixture(scope="module")
def parity() -> ModuleType:
    """benchmarks/parity_cutler.py as a module."""
    path = locations.REPOSITORY / "benchmarks/parity_cutler.py"
    spec = importlib.util.spec_from_file_location("parity_cutler", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    with np.load(FIXTURES / "seed0/demo3.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def output(parity: ModuleType) -> Any:
    """What our network computes for the first image."""
    torch.set_num_threads(1)
    config = json.loads((FIXTURES / "seed0/config.json").read_text())
    image_rgb = np.asarray(Image.open(FIXTURES / "demo3.png").convert("RGB"))
    return parity.OurDetector(FIXTURES / "seed0", config)(image_rgb[:, :, ::-1])


@pytest.mark.parametrize(("images", "code"), [(["demo3.png", "demo7.png"], 0), (["demo7.png"], 1)])
def test_the_check_agrees_with_the_recording_and_sees_a_change(
    images: list[str],
    code: int,
    parity: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(FIXTURES, tmp_path / "cutler")
    folder = tmp_path / "cutler/seed0"
    config = json.loads((folder / "config.json").read_text())
    changed = {"max_size": config["max_size"] - 140 * code}  # then the network sees smaller images
    (folder / "config.json").write_text(json.dumps(config | changed | {"images": images}))
    monkeypatch.setattr(sys, "argv", ["parity_cutler.py", str(folder)])
    assert parity.main() == code
    assert ("all images agree" if code == 0 else "1 of 1 images disagree") in capsys.readouterr().out


def test_intermediate_values_are_reproduced(parity: ModuleType, recorded: dict[str, np.ndarray], output: Any) -> None:
    errors = parity.compare(recorded, output, 0.5).trace
    assert errors["input_image"] == errors["rpn_num"] == 0
    assert len([name for name in errors if name.startswith("fpn")]) == 15
    assert max(error for name, error in errors.items() if name.startswith("fpn")) < 1e-3
    assert max(error for name, error in errors.items() if name.endswith(("boxes_top20", "deltas_top20"))) < 1e-2
    assert max(error for name, error in errors.items() if name.endswith("logits_top20")) < 1e-3


@pytest.mark.parametrize(
    ("name", "change"), [("pred_boxes", 0.02), ("scores", 2e-4), ("pred_masks_packed", None), ("nothing", 0)]
)
def test_a_recording_that_differs_is_a_mismatch(
    name: str, change: float | None, parity: ModuleType, recorded: dict[str, np.ndarray], output: Any
) -> None:
    arrays = {key: value.copy() for key, value in recorded.items()} | {"nothing": np.zeros(9)}
    if change is None:
        arrays[name][: len(arrays[name]) // 100] ^= 255
    else:
        arrays[name][3] += change
    assert parity.compare(arrays, output, 0.5).passed is (name == "nothing")


def with_row(recorded: dict[str, np.ndarray], box: list[float], score: float) -> dict[str, np.ndarray]:
    """The recording with one more detection, whose mask is empty."""
    count, height, width = recorded["pred_masks_shape"]
    masks = np.unpackbits(recorded["pred_masks_packed"], count=count * height * width)
    return recorded | {
        "pred_boxes": np.concatenate([recorded["pred_boxes"], np.array([box], np.float32)]),
        "pred_masks_shape": np.array([count + 1, height, width]),
        "pred_masks_packed": np.packbits(np.concatenate([masks, np.zeros(height * width, np.uint8)])),
        "scores": np.append(recorded["scores"], np.float32(score)),
    }


@pytest.mark.parametrize(("score", "passed"), [(0.50005, True), (0.51, False)])
def test_a_missing_detection_is_a_mismatch_unless_near_the_threshold(
    score: float, passed: bool, parity: ModuleType, recorded: dict[str, np.ndarray], output: Any
) -> None:
    result = parity.compare(with_row(recorded, [0, 0, 9, 9], score), output, 0.5)
    assert result.passed is passed
    assert result.box <= parity.BOX  # the others are still measured
    assert len(result.borderline) == passed
    assert all("only recorded" in row for row in result.borderline + result.unexplained)


@pytest.mark.parametrize(("shift", "passed"), [(1e-5, True), (1e-2, False)])
def test_a_detection_that_one_suppression_removed_is_borderline(
    shift: float, passed: bool, parity: ModuleType, recorded: dict[str, np.ndarray], output: Any
) -> None:
    x0, y0, x1, y1 = (float(side) for side in recorded["pred_boxes"][0])
    half = [x0, y0, x1, y0 + (0.5 - shift) * (y1 - y0)]  # its IoU with the best detection is 0.5 - shift
    result = parity.compare(with_row(recorded, half, 0.6), output, 0.5)
    assert result.passed is passed
    assert result.recorded == result.computed + 1


def test_what_a_borderline_detection_suppresses_is_borderline_too(
    parity: ModuleType, recorded: dict[str, np.ndarray], output: Any
) -> None:
    near = with_row(recorded, [0, 0, 30, 30], 0.50005)
    lost = [0.0, 0.0, 30.0, 14.0]  # an IoU of 0.47 with it: no consequence
    follows = [0.0, 0.0, 30.0, 15.0]
    more = parity.Output(
        np.concatenate([output.boxes, np.array([follows], np.float32)]),
        np.append(output.scores, np.float32(0.50002)),
        np.concatenate([output.masks, output.masks[:1]]),
        {},
    )
    assert parity.compare(near, more, 0.5).passed
    apart = parity.Output(
        np.concatenate([output.boxes, np.array([lost], np.float32)]), more.scores + 0.01, more.masks, {}
    )
    assert not parity.compare(near, apart, 0.5).passed
