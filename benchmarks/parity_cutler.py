"""Compare our Cascade Mask R-CNN with recorded detectron2 outputs.

    python benchmarks/parity_cutler.py DIR [--backend detectron2]

DIR holds config.json, model.pth and one NAME.npz per image, whose NAME.png lies in the folder above. Prints the largest
errors of each image and exits 1 on a mismatch: boxes beyond 1e-2 pixel, scores beyond 1e-4, under 99.9 % of mask pixels
equal, or another set of detections (those with a score within 1e-4 of the threshold may differ).
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

from pseudoris_cli.models.tensors import load_tensors
from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN, Sizes
from pseudoris_cli.networks.cascade_rcnn.transforms import normalise, paste_masks, resize, to_frame

BOX, SCORE, MASK = 1e-2, 1e-4, 1e-3
"""Largest box error in pixels, largest score error, largest share of differing mask pixels."""


@dataclass(frozen=True, slots=True)
class Output:
    """Detections of one image in its own pixels, best first, and what the network computed on the way (where known)."""

    boxes: np.ndarray
    scores: np.ndarray
    masks: np.ndarray
    trace: dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Recorded against computed: row counts, borderline rows left out, and the largest errors."""

    recorded: int
    computed: int
    borderline: int
    box: float
    score: float
    mask_share: float
    trace: dict[str, float]

    @property
    def passed(self) -> bool:
        return self.box <= BOX and self.score <= SCORE and self.mask_share <= MASK


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
        from pseudoris_cli.config import Numerics
        from pseudoris_cli.models import detectron2

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
    """Pair detections by rank after dropping borderline ones; anything unpaired counts as an unbounded error."""
    masks = np.unpackbits(recorded["pred_masks_packed"], count=int(recorded["pred_masks_shape"].prod()))
    masks = masks.reshape(recorded["pred_masks_shape"]).astype(bool)
    firm, ours = recorded["scores"] > threshold + SCORE, output.scores > threshold + SCORE
    borderline = int((~firm).sum() + (~ours).sum())
    trace = {name: _largest(recorded[name], value) for name, value in output.trace.items() if name in recorded}
    counts = len(recorded["scores"]), len(output.scores)
    if firm.sum() != ours.sum():
        return Comparison(*counts, borderline, np.inf, np.inf, np.inf, trace)
    partner = _partners(recorded["pred_boxes"][firm], recorded["scores"][firm], output.boxes[ours], output.scores[ours])
    return Comparison(
        *counts,
        borderline,
        _largest(recorded["pred_boxes"][firm], output.boxes[ours][partner]),
        _largest(recorded["scores"][firm], output.scores[ours][partner]),
        float((masks[firm] != output.masks[ours][partner]).mean()) if firm.any() else 0.0,
        trace,
    )


def _partners(boxes: np.ndarray, scores: np.ndarray, our_boxes: np.ndarray, our_scores: np.ndarray) -> np.ndarray:
    """The computed row of each recorded row. Ranks decide, but equally good neighbours (within 1e-4) may trade places."""
    free, partners = list(range(len(our_boxes))), []
    for box, score in zip(boxes, scores, strict=True):
        near = [k for k in free if abs(our_scores[k] - score) <= SCORE] or free
        best = min(near, key=lambda k: float(np.abs(our_boxes[k] - box).max()))
        free.remove(best)
        partners.append(best)
    return np.array(partners, int)


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
            f"{name}: {result.computed} detections (recorded {result.recorded}, borderline {result.borderline})  "
            f"box {result.box:.1e} px  score {result.score:.1e}  mask pixels {result.mask_share:.1e}  "
            f"{'equal' if result.passed else 'MISMATCH'}"
        )
        for key, error in sorted(result.trace.items()):
            print(f"    {key:24s} {error:.1e}")
    print("all images agree" if not failed else f"{failed} of {len(config['images'])} images disagree")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
