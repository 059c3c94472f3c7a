"""The cascade: three box heads, each refining the boxes of the one before, and a mask head on the last boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms, roi_align

from pseudoris_cli.networks.cascade_rcnn.boxes import Weights, apply_deltas, areas, clip, finite_rows
from pseudoris_cli.networks.cascade_rcnn.resnet_fpn import Sizes
from pseudoris_cli.networks.cascade_rcnn.rpn import STRIDES

STAGE_WEIGHTS: tuple[Weights, ...] = ((10, 10, 5, 5), (20, 20, 10, 10), (30, 30, 15, 15))
BOX_CELLS, MASK_CELLS = 7, 14
POOLED_LEVELS = 4
"""p2...p5; p6 is used for proposals only."""
NMS_IOU, MOST_DETECTIONS = 0.5, 100


@dataclass(frozen=True, slots=True)
class StageOutput:
    """One stage: its input boxes [P, 4], class logits [P, 2] (object, background), deltas [P, 4], output boxes [P, 4]."""

    boxes: torch.Tensor
    logits: torch.Tensor
    deltas: torch.Tensor
    refined: torch.Tensor


@dataclass(frozen=True, slots=True)
class Detections:
    """The objects of one image in network pixels: boxes [N, 4], scores [N] descending, mask probabilities [N, 28, 28]."""

    boxes: torch.Tensor
    scores: torch.Tensor
    mask_probabilities: torch.Tensor


class BoxHead(nn.Module):
    """Pooled features [P, C, 7, 7] to [P, hidden]."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels * BOX_CELLS**2, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return F.relu_(self.fc2(F.relu_(self.fc1(pooled.flatten(1)))))


class BoxPredictor(nn.Module):
    """Class logits (object first, background last) and box deltas, float32."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, 2)
        self.bbox_pred = nn.Linear(hidden, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(x).float(), self.bbox_pred(x).float()


class MaskHead(nn.Module):
    """Pooled features [P, C, 14, 14] to mask logits [P, 28, 28], float32."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mask_fcn1 = nn.Conv2d(channels, width, 3, padding=1)
        self.mask_fcn2 = nn.Conv2d(width, width, 3, padding=1)
        self.mask_fcn3 = nn.Conv2d(width, width, 3, padding=1)
        self.mask_fcn4 = nn.Conv2d(width, width, 3, padding=1)
        self.deconv = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.predictor = nn.Conv2d(width, 1, 1)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        x = pooled
        for layer in (self.mask_fcn1, self.mask_fcn2, self.mask_fcn3, self.mask_fcn4, self.deconv):
            x = F.relu_(layer(x))
        return self.predictor(x)[:, 0].float()


def pyramid_levels(boxes: torch.Tensor) -> torch.Tensor:
    """Which of p2...p5 (0...3) a box is pooled from (Lin et al., 2017, eq. 1): a 224-pixel box from p4."""
    level = torch.floor(4 + torch.log2(areas(boxes).sqrt() / 224 + 1e-8))
    return level.clamp(2, 5).long() - 2


def pool(features: Sequence[torch.Tensor], rois: torch.Tensor, cells: int) -> torch.Tensor:
    """RoIAlign (He et al., 2017), aligned, with one sample per pixel of a cell: [P, C, cells, cells].

    `rois` [P, 5] are image index and box. Sampling is always float32, as half precision cannot represent the coordinates.
    """
    level_of = pyramid_levels(rois[:, 1:])
    counts = (level_of[:, None] == torch.arange(POOLED_LEVELS, device=rois.device)).sum(0).tolist()
    pooled = features[0].new_zeros(len(rois), features[0].shape[1], cells, cells)
    for level, rows in enumerate(level_of.argsort(stable=True).split(counts)):
        aligned = roi_align(features[level].float(), rois[rows], cells, 1 / STRIDES[level], 0, aligned=True)
        pooled[rows] = aligned.to(pooled.dtype)
    return pooled


class CascadeHeads(nn.Module):
    """Box heads, box predictors and the mask head."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        stages = range(len(STAGE_WEIGHTS))
        self.box_head = nn.ModuleList(BoxHead(sizes.pyramid, sizes.box_hidden) for _ in stages)
        self.box_predictor = nn.ModuleList(BoxPredictor(sizes.box_hidden) for _ in stages)
        self.mask_head = MaskHead(sizes.pyramid, sizes.mask_channels)

    def run_stage(self, stage: int, features: Sequence[torch.Tensor], rois: torch.Tensor) -> StageOutput:
        """One refinement of `rois` [P, 5]; the refined boxes are not clipped."""
        logits, deltas = self.box_predictor[stage](self.box_head[stage](pool(features, rois, BOX_CELLS)))
        boxes = rois[:, 1:]
        return StageOutput(boxes, logits, deltas, apply_deltas(deltas, boxes, STAGE_WEIGHTS[stage]))

    def refine(
        self, features: Sequence[torch.Tensor], proposals: torch.Tensor, image_size: tuple[int, int]
    ) -> list[StageOutput]:
        """All stages on the proposals [P, 4] of one image, whose features are [1, C, h, w]."""
        outputs: list[StageOutput] = []
        boxes = proposals
        for stage in range(len(STAGE_WEIGHTS)):
            outputs.append(self.run_stage(stage, features, _rois(boxes)))
            boxes = clip(outputs[-1].refined, image_size)
        return outputs

    def forward(
        self,
        features: Sequence[torch.Tensor],
        proposals: torch.Tensor,
        image_size: tuple[int, int],
        score_thresh: float,
    ) -> Detections:
        """The detections of one image: boxes of the last stage with a mean score of the stages above `score_thresh`."""
        stages = self.refine(features, proposals, image_size)
        boxes, scores = select_detections(stages, image_size, score_thresh)
        masks = self.mask_head(pool(features, _rois(boxes), MASK_CELLS)).sigmoid()
        return Detections(boxes, scores, masks)


def select_detections(
    stages: Sequence[StageOutput], image_size: tuple[int, int], score_thresh: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Threshold, NMS at IoU 0.5, then the best 100: boxes [N, 4] and scores [N], best first."""
    first, second, third = (output.logits.softmax(dim=1)[:, 0] for output in stages)
    boxes, scores = stages[-1].refined, (first + second + third) * (1 / 3)
    likely = (finite_rows(boxes, scores) & (scores > score_thresh)).nonzero()[:, 0]
    boxes, scores = clip(boxes[likely], image_size), scores[likely]
    keep = batched_nms(boxes, scores, torch.zeros_like(scores, dtype=torch.long), NMS_IOU)[:MOST_DETECTIONS]
    return boxes[keep], scores[keep]


def _rois(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes.new_zeros(len(boxes), 1), boxes], dim=1)
