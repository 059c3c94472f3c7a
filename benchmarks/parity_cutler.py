"""Compare our Cascade Mask R-CNN with recorded detectron2 outputs.

    python benchmarks/parity_cutler.py DIR [--backend detectron2]

DIR holds config.json, model.pth and one NAME.npz for each of the config's images, which lie in the folder above. Prints what was
compared, with counts, largest errors and tolerances, and exits 1 on any doubt: a recording, image or array that is missing,
unknown, misshapen or not finite, an image without detections, or one of the following.

The recordings are float32 sums in the order of oneDNN's AVX-512 kernels. With these kernels every value is equal to the last bit;
others add in another order. Each layer then differs by less than 1e-4, but the cascade amplifies this: a box decides what the
next stage sees, so that the same network in float64 is 7e-2 pixels from one recorded box of stage 2. A bound for that would hide
faults. So there are two judges.

1. Steps. Each step of the recording and of the computation is repeated in float64 from the inputs that this very side had, by an
   implementation that shares no code with ours (tests/support/plain_cascade.py). Nothing is amplified, so these tolerances are
   tight, and the same for every processor (cutler_steps.TOLERANCE): the input image exactly, feature maps, all proposals,
   the logits and deltas of every stage, boxes passed on, selection, mask logits, boxes and masks in the image. A box whose own
   size decides by its last bits which level or how many samples it is pooled from is left out (at most one in fifty, printed).
2. Results. Recorded and computed detections are paired by overlap. Boxes must agree to 1e-2 pixel and scores to 1e-4; a pair that
   does not is counted and printed, and passes only if both sides are within 1e-3 of the box's longest side and 1e-3 in score of
   float64's own detection. The recorded intermediate values are compared with the computed ones as well, with the
   tolerances `apart`.

Masks are judged by their own pixels. A pixel may differ only if the recorded probability there, pasted by the referee, passes
0.5 (to 1e-5) when the sides of the recorded box move by the box error of this pair and the probabilities by the largest error of
this pair's probabilities. Differing pixels are at most 5 % of the recorded mask's area, or 2, and the IoU is at least 0.95.

A detection that one side lacks is borderline, and named so, where its score is within 1e-4 of the threshold or its IoU with what
suppresses it within 1e-4 of 0.5, or where it follows from such a one; at most 5 % of an image's detections, or one.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cutler_pairs import Side, compare_detections
from cutler_recordings import (
    TOP,
    BadRecording,
    Detectron2Detector,
    Inner,
    OurDetector,
    Output,
    Recording,
    read_config,
    read_recording,
    read_state,
)
from cutler_sides import judge_computed, judge_recorded
from cutler_steps import TOLERANCE, Report, longest, match, plain


@dataclass(frozen=True)
class Judge:
    """The referee's view of one recording, made once."""

    recording: Recording
    config: dict[str, Any]
    state: dict[str, torch.Tensor]
    exact: plain.Trace

    @classmethod
    def of(cls, recording: Recording, config: dict[str, Any], state: dict[str, torch.Tensor]) -> Judge:
        """`state` is the checkpoint of the recording."""
        double = {name: value.double() for name, value in state.items()}
        image = recording.arrays["input_image"]
        exact = plain.detect(double, image, config["post_nms_topk"], config["score_thresh"])
        return cls(recording, config, double, exact)

    def judge_recording(self) -> Report:
        """Whether the recording is what float64 says, and whole."""
        report, arrays, summary = Report(), self.recording.arrays, self.recording.summary
        used = judge_recorded(report, self.recording, self.exact, self.state)
        report.require("recorded arrays", used == set(arrays), f"not compared: {sorted(set(arrays) - used)}")
        report.compare("recorded rpn_num", "exactly", np.array(summary["num_proposals"]), arrays["rpn_num"])
        return report

    def judge_output(self, output: Output) -> Report:
        """Whether what was computed is what float64 says, step by step, and what is recorded."""
        report, threshold = Report(), self.config["score_thresh"]
        frame = self.recording.image_rgb.shape[:2]
        if output.masks.shape[1:] != frame:
            report.faults.append(f"masks of {output.masks.shape[1:]} pixels, not {frame}")
            return report
        if output.inner is not None:
            self._judge_input(report, output.inner)
            if not report.faults:
                judge_computed(report, output, self.exact, self.state, self.config)
            if report.faults:
                return report
            self._judge_intermediate(report, output.inner)
            self._judge_counts(report, output.inner)
        arrays, exact = self.recording.arrays, self.exact
        recorded = Side("recorded", arrays["pred_boxes"], arrays["scores"], self.recording.masks, arrays["mask_logits"])
        logits = None if output.inner is None else output.inner.mask_logits
        computed = Side("computed", output.boxes, output.scores, output.masks, logits)
        in_frame = plain.scale(exact.boxes, arrays["input_image"].shape[:2], frame)
        compare_detections(report, recorded, computed, (in_frame, exact.scores), threshold)
        return report

    def _judge_input(self, report: Report, inner: Inner) -> None:
        """The network's input: the resized image exactly, normalised, with zeros beyond it."""
        image, summary = self.recording.arrays["input_image"], self.recording.summary
        report.compare("computed input size", "exactly", np.array(summary["resized_hw"]), np.array(inner.size))
        report.compare(
            "computed input size", "exactly", np.array(summary["padded_hw"]), np.array(inner.pixels.shape[1:])
        )
        if report.faults:
            return
        std, mean = (np.array(self.config[key])[:, None, None] for key in ("pixel_std", "pixel_mean"))
        seen = (inner.pixels * std + mean)[:, : inner.size[0], : inner.size[1]]
        report.compare("computed input_image", "exactly", image, seen.round().transpose(1, 2, 0))
        report.compare("computed input", "pixel", plain.normalise(image).numpy(), inner.pixels)

    def _judge_intermediate(self, report: Report, inner: Inner) -> None:
        """Every recorded intermediate value beside the computed one."""
        arrays = self.recording.arrays
        for level, image in enumerate(inner.pyramid, start=2):
            spread, part = image.std(), f"fpn_p{level}"
            report.compare(f"both {part}", "exactly", arrays[f"{part}_shape"], np.array((1, *image.shape)))
            report.compare(f"both {part}", "map", arrays[f"{part}_slice"], image[:4, :8, :8], spread)
            report.compare(f"both {part}", "map", arrays[f"{part}_mean"], image.mean((1, 2)), spread)
            report.compare(f"both {part}", "map", arrays[f"{part}_std"], image.std((1, 2), ddof=1), spread)
        boxes, logits = arrays["rpn_boxes_top20"], arrays["rpn_logits_top20"]
        rows = match(boxes, inner.proposals)
        report.require("both rpn_boxes_top20", len(set(rows)) == len(boxes), "two are nearest to the same proposal")
        report.require("both rpn_boxes_top20", rows.max() <= TOP, "one is not among the first proposals")
        report.compare("both rpn_boxes_top20", "recorded proposal", boxes, inner.proposals[rows], longest(boxes))
        report.compare("both rpn_logits_top20", "recorded objectness", logits, inner.proposal_logits[rows])
        for stage, parts in enumerate(inner.stages):
            before = arrays[f"stage{stage}_in_boxes_top20"]
            for part, ours in zip(("in_boxes", "logits", "deltas"), parts, strict=True):
                name = f"stage{stage}_{part}_top20"
                unit = longest(before) if part == "in_boxes" else 1.0
                report.compare(f"both {name}", f"apart {part}", arrays[name], ours[rows], unit)

    def _judge_counts(self, report: Report, inner: Inner) -> None:
        """The counts in config.json, up to what is within rounding of deciding otherwise."""
        summary, threshold = self.recording.summary, self.config["score_thresh"]
        scores = np.mean(
            [1 / (1 + np.exp(logits[:, 1] - logits[:, 0].astype(float))) for _, logits, _ in inner.stages], 0
        )
        near = int((np.abs(scores - threshold) < TOLERANCE["apart score"]).sum())
        _require_count(report, "candidates", summary["num_candidates_over_thr"], int((scores > threshold).sum()), near)
        for name, boxes in (("proposals_per_level_p2_p5", inner.proposals), ("det_per_level_p2_p5", inner.boxes)):
            levels = np.array([4 + np.log2(plain.area(box) ** 0.5 / 224 + 1e-8) for box in boxes.astype(float)])
            counts = np.bincount([plain.level_of(box) - 2 for box in boxes.astype(float)], minlength=4)
            near = int((np.abs(levels - levels.round()) < 1e-3).sum())
            for level in range(4):
                _require_count(report, f"{name}[{level}]", summary[name][level], int(counts[level]), near)


def _require_count(report: Report, name: str, recorded: int, computed: int, near: int) -> None:
    report.require(f"both {name}", abs(recorded - computed) <= near, f"{computed}, recorded are {recorded}")


def show(report: Report) -> None:
    """Print one line for each kind of value, and every note and fault."""
    for (name, kind), check in report.checks.items():
        print(
            f"    {name:32s} {check.values:8d} values  largest error {check.error:.1e}  at most {TOLERANCE[kind]:.1e} ({kind})"
        )
    for note in report.notes:
        print(f"    {note}")
    for fault in report.faults:
        print(f"    MISMATCH, {fault}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", choices=("cascade_rcnn", "detectron2"), default="cascade_rcnn")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder: Path = arguments.folder
    try:
        config = read_config(folder)
        state = read_state(folder)
        recordings = [read_recording(folder, name, config) for name in config["images"]]
        unnamed = {path.stem for path in folder.glob("*.npz")} - {Path(name).stem for name in config["images"]}
        if unnamed:
            raise BadRecording(f"{folder} holds recordings that config.json does not name: {sorted(unnamed)}")
    except BadRecording as problem:
        print(f"nothing was compared: {problem}")
        return 1
    ours = arguments.backend == "cascade_rcnn"
    detector = OurDetector(state, config) if ours else Detectron2Detector(folder, config)
    failed = values = pairs = 0
    for recording in recordings:
        judge = Judge.of(recording, config, state)
        output = detector(recording.image_rgb)
        reports = [judge.judge_recording(), judge.judge_output(output)]
        equal = not any(report.faults for report in reports)
        counts = [sum(check.values for check in report.checks.values()) for report in reports]
        print(
            f"{recording.name}: {len(output.scores)} detections (recorded {len(recording.masks)})  "
            f"{'agree' if equal else 'MISMATCH'}"
        )
        for report in reports:
            show(report)
        failed += not equal
        values += sum(counts)
        pairs += reports[1].pairs
    print(
        f"CPU kernels {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads; recorded with AVX512"
    )
    print(f"compared {', '.join(config['images'])}: {values} values, {pairs} pairs of detections")
    if not ours:
        print("intermediate values of this backend cannot be seen, so they were not compared")
    print("all images agree" if not failed else f"{failed} of {len(recordings)} images disagree")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
