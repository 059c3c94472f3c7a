"""Train the demo's Cascade R-CNN on rendered scenes:  python training/train_cascade.py --pool POOL --out cascade.safetensors

The losses are those of Faster R-CNN (proposals), Cascade R-CNN (three box heads, at IoU 0.5, 0.6 and 0.7, each on the
boxes that the head before it refined) and Mask R-CNN (on the objects among the first head's boxes), from random weights.
Batch normalisation uses the statistics of each batch; their running mean is shipped.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from detection_targets import (
    BACKGROUND,
    Truth,
    encode_offsets,
    mask_targets,
    match_anchors,
    match_boxes,
    sample,
    truth_of,
)
from loop import Figures, Run, train
from pool import Pool

from pseudoris_cli.demo.world import HEIGHT, WIDTH
from pseudoris_cli.networks.cascade_rcnn.boxes import clip, nonempty
from pseudoris_cli.networks.cascade_rcnn.detector import DEMO, CascadeRCNN, initialise
from pseudoris_cli.networks.cascade_rcnn.roi_heads import MASK_CELLS, STAGE_WEIGHTS, pool
from pseudoris_cli.networks.cascade_rcnn.rpn import DELTA_WEIGHTS, STRIDES, make_anchors
from pseudoris_cli.networks.cascade_rcnn.transforms import PIXEL_MEAN, PIXEL_STD

IMAGES = 8
ANCHORS_PER_IMAGE, BOXES_PER_IMAGE, OBJECT_FRACTION = 64, 48, 0.33
STAGE_IOUS = (0.5, 0.6, 0.7)
FRAME = (HEIGHT, WIDTH)


def draw_batch(scenes: Pool, rng: np.random.Generator) -> tuple[torch.Tensor, list[Truth]]:
    """Random scenes, mirrored at random: normalised pixels [B, 3, H, W] and their ground truth."""
    chosen = rng.integers(0, len(scenes.images), IMAGES)
    images, owner = scenes.images[chosen], scenes.owner[chosen]
    if rng.random() < 0.5:
        images, owner = images[:, :, ::-1], owner[:, :, ::-1]
    if rng.random() < 0.5:
        images, owner = images[:, ::-1], owner[:, ::-1]
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
    gain = torch.from_numpy(rng.uniform(0.9, 1.1, (IMAGES, 1, 1, 1))).float()
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    return (pixels * gain - mean) / std, [truth_of(labels) for labels in owner]


class Losses:
    """All losses of a step; `generator` samples the anchors and boxes that they are computed on."""

    def __init__(self, network: CascadeRCNN, generator: torch.Generator) -> None:
        self.network, self.generator = network, generator
        shapes = [(HEIGHT // stride, WIDTH // stride) for stride in STRIDES]
        self.anchors = torch.cat([make_anchors(h, w, k, torch.device("cpu")) for k, (h, w) in enumerate(shapes)])

    def __call__(self, pixels: torch.Tensor, truths: list[Truth]) -> dict[str, torch.Tensor]:
        features = self.network.backbone(pixels)
        generator = self.network.proposal_generator
        predictions = [generator.rpn_head(feature) for feature in features]
        losses = self.rpn_losses(predictions, truths)
        with torch.no_grad():
            proposals = generator.propose(predictions, features, [FRAME] * len(truths))
        boxes = [torch.cat([found, truth.boxes]) for (found, _), truth in zip(proposals, truths, strict=True)]
        return losses | self.head_losses(features, boxes, truths)

    def rpn_losses(
        self, predictions: list[tuple[torch.Tensor, torch.Tensor]], truths: list[Truth]
    ) -> dict[str, torch.Tensor]:
        logits = torch.cat([logit for logit, _ in predictions], dim=1)
        deltas = torch.cat([delta for _, delta in predictions], dim=1)
        chosen_logits, is_object, chosen_deltas, target_deltas = [], [], [], []
        for i, truth in enumerate(truths):
            labels = match_anchors(self.anchors, truth)
            rows = sample(labels, ANCHORS_PER_IMAGE, 0.5, self.generator)
            objects = rows[labels[rows] >= 0]
            chosen_logits.append(logits[i, rows])
            is_object.append((labels[rows] >= 0).float())
            chosen_deltas.append(deltas[i, objects])
            target_deltas.append(encode_offsets(self.anchors[objects], truth.boxes[labels[objects]], DELTA_WEIGHTS))
        return {
            "objectness": F.binary_cross_entropy_with_logits(torch.cat(chosen_logits), torch.cat(is_object)),
            "anchors": F.l1_loss(torch.cat(chosen_deltas), torch.cat(target_deltas), reduction="sum")
            / sum(map(len, chosen_logits)),
        }

    def head_losses(
        self, features: list[torch.Tensor], boxes: list[torch.Tensor], truths: list[Truth]
    ) -> dict[str, torch.Tensor]:
        heads, losses = self.network.roi_heads, {}
        for stage, threshold in enumerate(STAGE_IOUS):
            labels = [match_boxes(found, truth, threshold) for found, truth in zip(boxes, truths, strict=True)]
            if stage == 0:
                rows = [sample(label, BOXES_PER_IMAGE, OBJECT_FRACTION, self.generator) for label in labels]
                boxes = [found[row] for found, row in zip(boxes, rows, strict=True)]
                labels = [label[row] for label, row in zip(labels, rows, strict=True)]
                losses["mask"] = self.mask_loss(features, boxes, labels, truths)
            rois = torch.cat([F.pad(found, (1, 0), value=i) for i, found in enumerate(boxes)])
            output = heads.run_stage(stage, features, rois)
            label = torch.cat(labels)
            targets = torch.cat([truth.boxes[label.clamp(min=0)] for label, truth in zip(labels, truths, strict=True)])
            on = label >= 0
            offsets = encode_offsets(rois[on, 1:], targets[on], STAGE_WEIGHTS[stage])
            losses[f"class{stage}"] = F.cross_entropy(output.logits, (label == BACKGROUND).long())
            losses[f"box{stage}"] = F.l1_loss(output.deltas[on], offsets, reduction="sum") / len(label)
            refined = clip(output.refined.detach(), FRAME).split([len(found) for found in boxes])
            boxes = [found[nonempty(found)] for found in refined]
        return losses

    def mask_loss(
        self,
        features: list[torch.Tensor],
        boxes: list[torch.Tensor],
        labels: list[torch.Tensor],
        truths: list[Truth],
    ) -> torch.Tensor:
        rois, targets = [], []
        for i, (found, label, truth) in enumerate(zip(boxes, labels, truths, strict=True)):
            on = label >= 0
            rois.append(F.pad(found[on], (1, 0), value=i))
            targets.append(mask_targets(truth, label[on], found[on], 2 * MASK_CELLS))
        logits = self.network.roi_heads.mask_head(pool(features, torch.cat(rois), MASK_CELLS))
        return F.binary_cross_entropy_with_logits(logits, torch.cat(targets))


def main() -> None:
    run = Run.parse("training/train_cascade.py", __doc__, steps=1200, rate=1.5e-3, seed=0)
    rng, scenes, network = run.prepare(), Pool.open(run.pool), CascadeRCNN(DEMO)
    generator = torch.Generator().manual_seed(run.seed)
    initialise(network, generator)
    run.restore(network)
    losses = Losses(network.train(), generator)

    def step_loss(_: float) -> tuple[torch.Tensor, Figures]:
        each = losses(*draw_batch(scenes, rng))
        return torch.stack(list(each.values())).sum(), {name: loss.item() for name, loss in each.items()}

    train(run, network, [], len(scenes.images), step_loss)


if __name__ == "__main__":
    main()
