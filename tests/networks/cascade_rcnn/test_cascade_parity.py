"""Our Cascade Mask R-CNN against recorded detectron2 outputs, through the benchmark that users run; and the benchmark itself."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import locations
import numpy as np
import pytest
import torch

sys.path.append(str(locations.REPOSITORY / "benchmarks"))
import cutler_pairs
import cutler_recordings
import cutler_steps
import parity_cutler

FIXTURES = locations.FIXTURES / "cutler"
FOLDER = FIXTURES / "seed0"


@pytest.fixture(scope="module")
def judge() -> Any:
    torch.set_num_threads(1)
    config, state = cutler_recordings.read_config(FOLDER), cutler_recordings.read_state(FOLDER)
    return parity_cutler.Judge.of(cutler_recordings.read_recording(FOLDER, "demo3.png", config), config, state)


@pytest.fixture(scope="module")
def output(judge: Any) -> Any:
    """What our network computes for the first image."""
    detector = cutler_recordings.OurDetector(cutler_recordings.read_state(FOLDER), judge.config)
    return detector(judge.recording.image_rgb)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the recordings."""
    shutil.copytree(FIXTURES, tmp_path / "cutler")
    return tmp_path / "cutler/seed0"


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["parity_cutler.py", str(folder)])
    return parity_cutler.main()


def write_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def write_arrays(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    with np.load(folder / "demo7.npz") as arrays:
        changed = dict(arrays)
    change(changed)
    np.savez(folder / "demo7.npz", **changed)


def test_the_recordings_are_reproduced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "all images agree" in out
    assert "compared demo3.png, demo7.png: " in out
    assert "90 pairs of detections" in out


CONFIGS: dict[str, Callable[[dict[str, Any]], None]] = {
    "an image that is not there": lambda config: config["images"].append("demo8.png"),
    "no images": lambda config: config.update(images=[]),
    "an image named twice": lambda config: config.update(images=["demo7.png", "demo7.png"]),
    "a recording that is not named": lambda config: config.update(images=["demo7.png"]),
    "no summary": lambda config: config["summary"].pop("demo3"),
    "other constants": lambda config: config.update(nms_thresh=0.6),
    "strides in the 1x1": lambda config: config["resnet"].update(stride_in_1x1=True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_that_is_not_whole_is_compared_with_nothing(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(folder, CONFIGS[name])
    assert run(folder, monkeypatch) == 1
    assert "nothing was compared" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.json", "model.pth", "demo3.npz", "../demo7.png"])
def test_a_missing_file_is_told(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    assert run(folder, monkeypatch) == 1
    assert "is missing" in capsys.readouterr().out


ARRAYS: dict[str, Callable[[dict[str, np.ndarray]], Any]] = {
    "fpn_p4_std is missing": lambda arrays: arrays.pop("fpn_p4_std"),
    "fpn_p7_mean is not known": lambda arrays: arrays.update(fpn_p7_mean=np.zeros(16)),
    "stage1_deltas_top20 has the shape": lambda arrays: arrays.update(stage1_deltas_top20=np.zeros((19, 4))),
    "rpn_logits_top20 holds values that are not finite": lambda arrays: arrays["rpn_logits_top20"].fill(np.nan),
    "pred_classes holds another class": lambda arrays: arrays["pred_classes"].fill(1),
    "pred_masks_shape says": lambda arrays: arrays.update(pred_masks_shape=np.array([48, 240, 278])),
    "scores do not descend": lambda arrays: arrays["scores"].sort(),
}


@pytest.mark.parametrize("complaint", ARRAYS)
def test_a_recording_that_is_not_whole_is_compared_with_nothing(
    complaint: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_arrays(folder, ARRAYS[complaint])
    assert run(folder, monkeypatch) == 1
    assert complaint in capsys.readouterr().out


def test_an_image_without_detections_is_compared_with_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = ("pred_boxes", "scores", "pred_classes", "raw_boxes", "raw_scores", "mask_logits", "pred_masks_packed")
    write_arrays(folder, lambda arrays: arrays.update({name: arrays[name][:0] for name in counted}))
    write_arrays(folder, lambda arrays: arrays.update(pred_masks_shape=np.array([0, 278, 240])))
    write_config(folder, lambda config: config["summary"]["demo7"].update(num_det=0))
    assert run(folder, monkeypatch) == 1
    assert "no detections are recorded" in capsys.readouterr().out


CHANGES = {
    "input_image": 1,
    "rpn_num": -1,
    "rpn_boxes_top20": 0.5,
    "rpn_logits_top20": 5e-3,
    "pred_boxes": 2e-2,
    "raw_boxes": 5e-2,
    "scores": 2e-4,
    "raw_scores": 2e-4,
    "mask_logits": 5e-2,
    **{f"fpn_p{level}_{part}": 2e-2 for level in range(2, 7) for part in ("mean", "std", "slice")},
    **{f"fpn_p{level}_shape": 1 for level in range(2, 7)},
    **{f"stage{stage}_in_boxes_top20": 0.1 for stage in range(3)},
    **{f"stage{stage}_{part}_top20": 4e-3 for stage in range(3) for part in ("logits", "deltas")},
}
"""Every recorded number and a change of its last entry that must be noticed."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_recorded_number_that_is_changed_is_noticed(name: str, judge: Any, output: Any) -> None:
    arrays = {key: value.copy() for key, value in judge.recording.arrays.items()}
    arrays[name].reshape(-1)[-1:] += np.array(CHANGES[name]).astype(arrays[name].dtype)
    changed = replace(judge, recording=replace(judge.recording, arrays=arrays))
    assert changed.judge_recording().faults or changed.judge_output(output).faults


def test_every_recorded_number_can_be_changed(judge: Any) -> None:
    assert set(CHANGES) == set(judge.recording.arrays) - {"pred_classes", "pred_masks_packed", "pred_masks_shape"}


def shifted(masks: np.ndarray, row: int, rows: int, columns: int) -> None:
    masks[row] = np.roll(masks[row], (rows, columns), (0, 1))


MASKS: dict[str, Callable[[np.ndarray, int], None]] = {
    "wholly wrong": lambda masks, row: np.logical_not(masks[row], out=masks[row]),
    "empty": lambda masks, row: masks[row].fill(False),
    "of another detection": lambda masks, row: masks.__setitem__(row, masks[row - 1]),
    "a pixel lower": lambda masks, row: shifted(masks, row, 1, 0),
    "three pixels to the right": lambda masks, row: shifted(masks, row, 0, 3),
    "mirrored": lambda masks, row: masks.__setitem__(row, masks[row][:, ::-1].copy()),
    "upside down": lambda masks, row: masks.__setitem__(row, masks[row][::-1].copy()),
    "one pixel more": lambda masks, row: masks[row].__setitem__((0, 0), not masks[row][0, 0]),
}


@pytest.mark.parametrize("row", [0, 17, 41])
@pytest.mark.parametrize("name", MASKS)
def test_one_wrong_mask_is_noticed_by_both_judges(name: str, row: int, judge: Any, output: Any) -> None:
    masks = output.masks.copy()
    MASKS[name](masks, row)
    assert judge.judge_output(replace(output, masks=masks)).faults
    unseen = replace(output, masks=masks, inner=None)  # as of a backend whose steps are not seen
    assert all(fault.startswith("both masks") for fault in judge.judge_output(unseen).faults)
    assert judge.judge_output(unseen).faults


def test_a_transposed_mask_and_another_frame_are_noticed(judge: Any, output: Any) -> None:
    masks = output.masks.copy()
    height = masks.shape[1]
    masks[:, :, :height] = masks[:, :, :height].transpose(0, 2, 1)
    assert judge.judge_output(replace(output, masks=masks, inner=None)).faults
    assert judge.judge_output(replace(output, masks=output.masks.transpose(0, 2, 1), inner=None)).faults


def test_results_alone_are_judged_without_steps(judge: Any, output: Any) -> None:
    report = judge.judge_output(replace(output, inner=None))
    assert report.faults == []
    assert report.pairs == 42
    nothing = replace(output, boxes=output.boxes[:0], scores=output.scores[:0], masks=output.masks[:0], inner=None)
    assert "both detections: no pair" in judge.judge_output(nothing).faults
    backwards = replace(output, boxes=output.boxes[::-1].copy(), scores=output.scores[::-1], masks=output.masks[::-1])
    assert judge.judge_output(replace(backwards, inner=None)).faults


def test_what_is_not_a_number_is_a_mismatch(judge: Any, output: Any) -> None:
    for name in ("boxes", "scores"):
        values = getattr(output, name).copy()
        values[5] = np.nan
        assert judge.judge_output(replace(output, **{name: values}, inner=None)).faults
    for name in ("pixels", "proposals", "proposal_logits", "boxes", "scores", "mask_logits"):
        values = getattr(output.inner, name).copy()
        values[-1] = np.nan
        assert judge.judge_output(replace(output, inner=replace(output.inner, **{name: values}))).faults


def detections(judge: Any, more: dict[str, Any]) -> tuple[Any, Any]:
    """The recorded detections, and these with one more whose mask is empty."""
    arrays, masks = judge.recording.arrays, judge.recording.masks
    before = cutler_pairs.Side("recorded", arrays["pred_boxes"], arrays["scores"], masks, arrays["mask_logits"])
    after = cutler_pairs.Side(
        "computed",
        np.concatenate([before.boxes, np.array([more["box"]], np.float32)]),
        np.append(before.scores, np.float32(more["score"])),
        np.concatenate([masks, np.zeros_like(masks[:1])]),
        np.concatenate([arrays["mask_logits"], np.zeros((1, 28, 28), np.float32)]),
    )
    return before, after


def faults_of(judge: Any, recorded: Any, computed: Any) -> cutler_steps.Report:
    report = cutler_steps.Report()
    cutler_pairs.compare_detections(report, recorded, computed, (judge.exact.boxes, judge.exact.scores), 0.5)
    return report


@pytest.mark.parametrize(("score", "passed"), [(0.50005, True), (0.49995, True), (0.5005, False), (0.49, False)])
def test_a_detection_too_many_is_a_mismatch_unless_near_the_threshold(score: float, passed: bool, judge: Any) -> None:
    recorded, computed = detections(judge, {"box": [0, 0, 9, 9], "score": score})
    report = faults_of(judge, recorded, computed)
    assert (not report.faults) is passed
    assert len(report.notes) == passed
    lacking = faults_of(judge, replace(computed, name="recorded"), replace(recorded, name="computed"))
    assert (not lacking.faults) is passed


@pytest.mark.parametrize(("shift", "passed"), [(1e-5, True), (1e-2, False)])
def test_a_detection_that_one_suppression_removed_is_borderline(shift: float, passed: bool, judge: Any) -> None:
    x0, y0, x1, y1 = (float(side) for side in judge.recording.arrays["pred_boxes"][0])
    half = [x0, y0, x1, y0 + (0.5 - shift) * (y1 - y0)]  # its IoU with the best detection is 0.5 - shift
    recorded, computed = detections(judge, {"box": half, "score": 0.501})
    assert (not faults_of(judge, recorded, computed).faults) is passed


@pytest.mark.parametrize(("height", "passed"), [(15.0, True), (14.0, False)])
def test_what_a_borderline_detection_suppresses_is_borderline_too(height: float, passed: bool, judge: Any) -> None:
    _, near = detections(judge, {"box": [0, 0, 30, 30], "score": 0.50009})
    _, follows = detections(judge, {"box": [0, 0, 30, height], "score": 0.50008 if passed else 0.51})
    report = faults_of(judge, replace(near, name="recorded"), replace(follows, name="computed"))
    assert (not report.faults) is passed


def test_many_borderline_detections_are_a_mismatch(judge: Any) -> None:
    recorded, computed = detections(judge, {"box": [0, 0, 9, 9], "score": 0.50005})
    for offset in (20, 40, 60):
        computed = replace(
            computed,
            boxes=np.concatenate([computed.boxes, np.array([[offset, 0, offset + 9, 9]], np.float32)]),
            scores=np.append(computed.scores, np.float32(0.50005)),
            masks=np.concatenate([computed.masks, computed.masks[-1:]]),
        )
    assert any("4 are borderline" in fault for fault in faults_of(judge, recorded, computed).faults)


def test_a_box_beyond_a_hundredth_of_a_pixel_is_judged_by_float64(judge: Any, output: Any) -> None:
    """The same distance is excused where the recording is between the two, and not where it is far from float64."""
    for pixels, passed in ((0.02, True), (0.5, False)):
        boxes = output.boxes.copy()
        boxes[0] += pixels
        report = judge.judge_output(replace(output, boxes=boxes, inner=None))
        assert (not report.faults) is passed
        assert any("of 42 pairs are up to" in note for note in report.notes)
