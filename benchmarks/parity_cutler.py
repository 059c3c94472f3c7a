"""Compare our Cascade Mask R-CNN with recorded detectron2 outputs.

    python benchmarks/parity_cutler.py DIR [--backend detectron2]

DIR holds config.json, model.pth and one NAME.npz for each of the config's images, which lie in the folder above. Prints the
largest errors of each image and exits 1 on a mismatch: boxes beyond 1e-2 pixel, scores beyond 1e-4, a mask with under
99.9 % of its pixels equal, or another set of detections. A detection that one side lacks is borderline, and named as such,
where its score is within 1e-4 of the threshold or its IoU with what suppresses it within 1e-4 of 0.5.

The recordings are float32 sums in the order of oneDNN's AVX-512 kernels. With these kernels every value is equal to the last
bit; others (AVX2, SSE) add in another order, which moves boxes by up to some hundredths of a pixel.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.ops import box_iou

from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN, Sizes
from pseudoris_cli.networks.cascade_rcnn.transforms import normalise, paste_masks, resize, to_frame
from pseudoris_cli.weights.tensors import load_tensors

BOX, SCORE, MASK = 1e-2, 1e-4, 1e-3
"""Largest box error in pixels, largest score error, largest share of a mask's pixels that differ."""
NMS_IOU, IOU_MARGIN = 0.5, 1e-4


@dataclass(frozen=True, slots=True)
class Output:
    """Detections of one image in its own pixels, best first, and what the network computed on the way (where known)."""

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    trace: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Recorded against computed: row counts, largest errors of paired rows, and the rows that one side lacks."""

    recorded: int
    computed: int
    box: float
    score: float
    mask_share: float
    borderline: tuple[str, ...]
    unexplained: tuple[str, ...]
    trace: dict[str, float]

    @property
    def passed(self) -> bool:
        return not self.unexplained and self.box <= BOX and self.score <= SCORE and self.mask_share <= MASK


@dataclass(frozen=True, slots=True)
class Side:
    """The detections of one side: boxes [N, 4], scores [N], masks bool [N, H, W]."""

    name: str
    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray

    def told(self, row: int) -> str:
        corners = ", ".join(f"{side:.1f}" for side in self.boxes[row])
        return f"only {self.name}: score {self.scores[row]:.4f}, box {corners}"


def sizes_of(config: dict[str, Any]) -> Sizes:
    """Our network sizes from a recording's config.json."""
    net = config["resnet"]
    return Sizes(
        stem=net["stem"],
        bottleneck=net["bottleneck"][0],
        out=net["out"][0],
        blocks=tuple(net["blocks"]),
        pyramid=config["fpn_channels"],
        box_hidden=config["fc_dim"],
        mask_channels=config["mask_conv_dim"],
        proposals=config["post_nms_topk"],
    )


class OurDetector:
    """This project's network, with its intermediate values."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.config = config
        network = CascadeRCNN(sizes_of(config))
        path = folder / "model.pth"
        load_strictly(network, state_dict_of(load_tensors(path), str(path)), str(path))
        self.network = network.prepare("cpu", torch.float32)

    @torch.inference_mode()
    def __call__(self, image_bgr: np.ndarray) -> Output:
        resized = resize(image_bgr, self.config["min_size"], self.config["max_size"])
        size, frame = resized.shape[:2], image_bgr.shape[:2]
        features = self.network.backbone(normalise(resized, "cpu")[None])
        [(proposals, logits)] = self.network.proposal_generator(features, [size])
        stages = self.network.roi_heads.refine(features, proposals, size)
        trace = {"input_image": resized, "rpn_num": np.array(len(proposals))}
        trace |= {f"fpn_p{k + 2}_slice": level[0, :4, :8, :8].numpy() for k, level in enumerate(features)}
        trace |= {f"fpn_p{k + 2}_mean": level[0].mean((1, 2)).numpy() for k, level in enumerate(features)}
        trace |= {f"fpn_p{k + 2}_std": level[0].std((1, 2)).numpy() for k, level in enumerate(features)}
        trace |= {"rpn_boxes_top20": proposals[:20].numpy(), "rpn_logits_top20": logits[:20].numpy()}
        for k, stage in enumerate(stages):
            trace[f"stage{k}_in_boxes_top20"] = stage.boxes[:20].numpy()
            trace[f"stage{k}_logits_top20"] = stage.logits[:20].numpy()
            trace[f"stage{k}_deltas_top20"] = stage.deltas[:20].numpy()
        found = self.network.roi_heads(features, proposals, size, self.config["score_thresh"])
        placed = to_frame(found, size, frame)
        masks = [mask.copy() for mask in paste_masks(placed, frame)]
        stacked = np.stack(masks) if masks else np.zeros((0, *frame), bool)
        return Output(placed.boxes.numpy(), placed.scores.numpy(), stacked, trace)


class Detectron2Detector:
    """The optional backend on the same files; final results only."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        from pseudoris_cli.backends import detectron2
        from pseudoris_cli.settings.models import Numerics

        settings = detectron2.Settings(
            checkpoint=str(folder / "model.pth"),
            channels="rgb",
            score_thresh=config["score_thresh"],
            min_size=config["min_size"],
            max_size=config["max_size"],
            overrides=config["overrides"],
        )
        self.proposer = detectron2.load(settings, Numerics(), "cpu")

    def __call__(self, image_bgr: np.ndarray) -> Output:
        found = self.proposer.instances(image_bgr)  # `channels: rgb` leaves the order alone, so BGR stays BGR
        return Output(found.pred_boxes.tensor.numpy(), found.scores.numpy(), found.pred_masks.numpy(), {})


def compare(recorded: dict[str, np.ndarray], output: Output, threshold: float) -> Comparison:
    """Pair detections by overlap and measure; judge those that one side lacks."""
    shape = tuple(recorded["pred_masks_shape"])
    masks = np.unpackbits(recorded["pred_masks_packed"], count=int(np.prod(shape))).reshape(shape).astype(bool)
    theirs = Side("recorded", recorded["pred_boxes"], recorded["scores"], masks)
    ours = Side("computed", output.boxes, output.scores, output.masks)
    pairs = _pairs(theirs, ours)
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    same_frame = theirs.masks.shape[1:] == ours.masks.shape[1:]
    different = (theirs.masks[a] != ours.masks[b]).mean((1, 2)) if same_frame else np.full(1, np.inf)
    alone = [(theirs, ours, row) for row in range(len(theirs.scores)) if row not in a]
    alone += [(ours, theirs, row) for row in range(len(ours.scores)) if row not in b]
    excused = _borderline(alone, threshold)
    return Comparison(
        len(theirs.scores),
        len(ours.scores),
        _largest(theirs.boxes[a], ours.boxes[b]),
        _largest(theirs.scores[a], ours.scores[b]),
        float(different.max(initial=0.0)),
        tuple(alone[i][0].told(alone[i][2]) for i in sorted(excused)),
        tuple(side.told(row) for i, (side, _, row) in enumerate(alone) if i not in excused),
        {name: _largest(recorded[name], value) for name, value in output.trace.items() if name in recorded},
    )


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return box_iou(torch.from_numpy(a).double().view(-1, 4), torch.from_numpy(b).double().view(-1, 4)).numpy()


def _pairs(theirs: Side, ours: Side) -> list[tuple[int, int]]:
    """Rows of either side that show the same object, best first: each recorded one takes what overlaps it most (above 0.5)."""
    overlaps, pairs = _overlaps(theirs.boxes, ours.boxes), []
    for row in range(len(theirs.scores) if len(ours.scores) else 0):
        best = int(overlaps[row].argmax())
        if overlaps[row, best] > NMS_IOU:
            pairs.append((row, best))
            overlaps[:, best] = -1.0
    return pairs


def _borderline(alone: list[tuple[Side, Side, int]], threshold: float) -> set[int]:
    """Which unpaired detections (side, other side, row) rounding may add or remove.

    By the threshold; by a suppression of IoU near 0.5 on the other side; or as the consequence of another such detection,
    which suppresses this one where it is kept.
    """
    excused: set[int] = set()
    for _ in alone:  # consequences of consequences
        for i, (side, other, row) in enumerate(alone):
            overlaps = _overlaps(side.boxes[row : row + 1], other.boxes)[0]
            better = other.scores > side.scores[row] - SCORE
            turned = (np.abs(overlaps - NMS_IOU) < IOU_MARGIN) & better
            kept = [j for j in excused if alone[j][0] is other]
            followed = any(overlaps[alone[j][2]] > NMS_IOU - IOU_MARGIN and better[alone[j][2]] for j in kept)
            if side.scores[row] < threshold + SCORE or turned.any() or followed:
                excused.add(i)
    return excused


def _largest(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    return float(np.abs(expected.astype(np.float64) - actual).max()) if expected.size else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", choices=("cascade_rcnn", "detectron2"), default="cascade_rcnn")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder: Path = arguments.folder
    config = json.loads((folder / "config.json").read_text())
    detector = (OurDetector if arguments.backend == "cascade_rcnn" else Detectron2Detector)(folder, config)
    failed = 0
    for name in config["images"]:
        upright = ImageOps.exif_transpose(Image.open(folder.parent / name))
        image_bgr = np.asarray(upright.convert("RGB"))[:, :, ::-1]
        with np.load(folder / f"{Path(name).stem}.npz") as recorded:
            result = compare(dict(recorded), detector(image_bgr), config["score_thresh"])
        failed += not result.passed
        print(
            f"{name}: {result.computed} detections (recorded {result.recorded}, borderline {len(result.borderline)})  "
            f"box {result.box:.1e} px  score {result.score:.1e}  mask pixels {result.mask_share:.1e}  "
            f"{'equal' if result.passed else 'MISMATCH'}"
        )
        for what, rows in (("borderline", result.borderline), ("MISMATCH", result.unexplained)):
            for row in rows:
                print(f"    {what}, {row}")
        for key, error in sorted(result.trace.items()):
            print(f"    {key:24s} {error:.1e}")
    print(f"CPU kernels {torch.backends.cpu.get_cpu_capability()}; recorded with AVX512")
    print("all images agree" if not failed else f"{failed} of {len(config['images'])} images disagree")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
