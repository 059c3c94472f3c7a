"""The recorded and the computed side of one image, each against float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from cutler_recordings import Inner, Output, Recording
from cutler_steps import Report, Side, decode64, judge_masks, judge_proposals, judge_stages, longest, match, plain


def judge_recorded(
    report: Report, recording: Recording, exact: plain.Trace, state: dict[str, torch.Tensor]
) -> set[str]:
    """Everything that is recorded against float64; the names of the arrays that took part."""
    arrays, used = recording.arrays, {"input_image", "pred_masks_packed", "pred_masks_shape", "pred_classes", "rpn_num"}

    def take(name: str) -> np.ndarray:
        used.add(name)
        return arrays[name]

    for level, image in enumerate(exact.pyramid, start=2):
        part, spread = f"fpn_p{level}", image.std()
        report.compare(f"recorded {part}", "exactly", np.array((1, *image.shape)), take(f"{part}_shape"))
        report.compare(f"recorded {part}", "map", image[:4, :8, :8], take(f"{part}_slice"), spread)
        report.compare(f"recorded {part}", "map", image.mean((1, 2)), take(f"{part}_mean"), spread)
        report.compare(f"recorded {part}", "map", image.std((1, 2), ddof=1), take(f"{part}_std"), spread)
    boxes, logits = take("rpn_boxes_top20"), take("rpn_logits_top20")
    judge_proposals(report, "recorded", "recorded ", (boxes, logits), (exact.proposals, exact.proposal_logits))
    stages = [
        (take(f"stage{k}_in_boxes_top20"), take(f"stage{k}_logits_top20"), take(f"stage{k}_deltas_top20"))
        for k in range(3)
    ]
    report.compare("recorded stage0 in_boxes", "exactly", boxes, stages[0][0])
    report.compare("recorded scores", "exactly", take("raw_scores"), take("scores"))
    height, width = arrays["input_image"].shape[:2]
    frame = recording.image_rgb.shape[:2]
    detections = take("raw_boxes"), take("mask_logits"), take("pred_boxes"), recording.masks
    side = Side("recorded", (height, width), frame, stages, *detections)
    judge_stages(report, side, state, exact.pyramid)
    judge_masks(report, side, state, exact.pyramid)
    return used


def judge_computed(
    report: Report, output: Output, exact: plain.Trace, state: dict[str, torch.Tensor], config: dict[str, Any]
) -> None:
    """Everything that is computed against float64, up to the first step that differs: what follows it cannot be judged."""
    inner, frame = output.inner, output.masks.shape[1:]
    assert inner is not None
    detections = inner.boxes, inner.mask_logits, output.boxes, output.masks
    side = Side("computed", inner.size, frame, inner.stages, *detections)
    own = [level.astype(np.float64) for level in inner.pyramid]
    steps = (
        lambda: _judge_shape(report, inner),
        lambda: _judge_maps(report, inner, exact),
        lambda: _judge_own_proposals(
            report, inner, [plain.rpn_level(state, k, level) for k, level in enumerate(own)], config
        ),
        lambda: judge_stages(report, side, state, own),
        lambda: _judge_selection(report, inner, output, config["score_thresh"]),
        lambda: judge_masks(report, side, state, own),
    )
    for step in steps:
        step()
        if report.faults:
            return


def _judge_shape(report: Report, inner: Inner) -> None:
    report.require("computed stages", len(inner.stages) == 3, f"{len(inner.stages)}, not 3")
    counts = {len(part) for part in (inner.proposals, *(part for stage in inner.stages for part in stage))}
    report.require("computed stages", len(counts) == 1, f"as many rows as {sorted(counts)}, not as there are proposals")
    for name, values in _values(inner):
        report.require(f"computed {name}", bool(np.isfinite(values).all()), "values that are not finite")


def _judge_maps(report: Report, inner: Inner, exact: plain.Trace) -> None:
    report.require("computed fpn", len(inner.pyramid) == 5, f"{len(inner.pyramid)} maps, not 5")
    for level, (image, ours) in enumerate(zip(exact.pyramid, inner.pyramid, strict=False), start=2):
        report.compare(f"computed fpn_p{level}", "map", image, ours, image.std())


def _judge_selection(report: Report, inner: Inner, output: Output, threshold: float) -> None:
    report.compare("computed stage0 in_boxes", "exactly", inner.proposals, inner.stages[0][0])
    logits = [stage[1].astype(np.float64) for stage in inner.stages]
    boxes, scores, _ = plain.select(decode64(inner.stages[2], 2), logits, inner.size, threshold)
    report.compare("computed raw_boxes", "selected", boxes, inner.boxes, longest(boxes) if len(boxes) else 1.0)
    report.compare("computed scores", "score", scores, inner.scores)
    report.compare("computed scores", "exactly", inner.scores, output.scores)


def _judge_own_proposals(
    report: Report, inner: Inner, levels: list[tuple[np.ndarray, np.ndarray, np.ndarray]], config: dict[str, Any]
) -> None:
    """All proposals from this side's own maps. Where an IoU within 1e-6 of the threshold decides, either decision is right."""
    found, most = (inner.proposals, inner.proposal_logits), config["post_nms_topk"]
    exact = plain.propose(levels, inner.size, most)
    trial = Report()
    judge_proposals(trial, "computed", "", found, exact)
    edges, same = 0, not trial.faults and len(exact[0]) == len(found[0])
    if not same:
        few, many = (plain.propose(levels, inner.size, 1 << 30, plain.RPN_IOU + step) for step in (-1e-6, 1e-6))
        edges = abs(len(many[0]) - len(few[0]))
        report.notes.append(f"computed proposals: {edges} hang on an IoU of {plain.RPN_IOU}")
        lacking = len(set(match(exact[0], many[0])) - set(match(found[0], many[0])))
        report.require("computed rpn_boxes", lacking <= edges <= 0.01 * most, f"{lacking} of float64 are not there")
        exact = exact if edges == 0 else many
    count = abs(len(exact[0][:most]) - len(found[0]))
    report.require(
        "computed rpn_num", count <= edges and len(found[0]) <= most, f"{len(found[0])}, not {len(exact[0])}"
    )
    if same:
        report.checks |= trial.checks
    else:
        judge_proposals(report, "computed", "", found, exact)


def _values(inner: Inner) -> Iterator[tuple[str, np.ndarray]]:
    yield "pixels", inner.pixels
    yield from ((f"fpn_p{level}", image) for level, image in enumerate(inner.pyramid, start=2))
    yield from (("rpn_boxes", inner.proposals), ("rpn_logits", inner.proposal_logits))
    yield from ((f"stage{k}", part) for k, stage in enumerate(inner.stages) for part in stage)
    yield from (("raw_boxes", inner.boxes), ("scores", inner.scores), ("mask_logits", inner.mask_logits))
