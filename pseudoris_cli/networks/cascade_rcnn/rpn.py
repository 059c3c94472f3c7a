"""The region proposal network (Ren et al., 2015) on p2...p6: three anchors per location, the best boxes of each level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.networks.cascade_rcnn.boxes import Weights, apply_deltas, clip, constant, finite_rows, nonempty

STRIDES = (4, 8, 16, 32, 64)
ANCHOR_SIZES = (32, 64, 128, 256, 512)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""
DELTA_WEIGHTS: Weights = (1.0, 1.0, 1.0, 1.0)
TOP_PER_LEVEL, NMS_IOU = 1000, 0.65


class RPNHead(nn.Module):
    """Objectness and box deltas for each anchor, shared by all levels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        anchors = len(ASPECT_RATIOS)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness_logits = nn.Conv2d(channels, anchors, 1)
        self.anchor_deltas = nn.Conv2d(channels, anchors * 4, 1)

    def forward(self, feature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One level [N, C, H, W] to logits [N, H*W*A] and deltas [N, H*W*A, 4], float32."""
        x = F.relu_(self.conv(feature))
        logits = self.objectness_logits(x).permute(0, 2, 3, 1).flatten(1)
        deltas = self.anchor_deltas(x).unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        return logits.float(), deltas.float()


def make_anchors(height: int, width: int, level: int, device: torch.device) -> torch.Tensor:
    """The anchors of a map [height * width * 3, 4]: rows first, then ratios; the first is centred on pixel (0, 0)."""
    widths = [math.sqrt(ANCHOR_SIZES[level] ** 2 / ratio) for ratio in ASPECT_RATIOS]
    sides = [(width, ratio * width) for width, ratio in zip(widths, ASPECT_RATIOS, strict=True)]
    corners = [corner for w, h in sides for corner in (-w / 2, -h / 2, w / 2, h / 2)]
    cell = constant(tuple(corners), device).view(-1, 4)
    y = torch.arange(height, device=device, dtype=torch.float32) * STRIDES[level]
    x = torch.arange(width, device=device, dtype=torch.float32) * STRIDES[level]
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    return (grid.repeat(1, 1, 2)[:, :, None] + cell).reshape(-1, 4)


class RPN(nn.Module):
    """Object proposals from the feature maps of images of one padded size."""

    def __init__(self, channels: int, proposals: int) -> None:
        super().__init__()
        self.proposals = proposals
        self.rpn_head = RPNHead(channels)

    def forward(
        self, features: Sequence[torch.Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Proposals [P, 4] and their logits [P] for each image, best first, P <= `proposals`.

        Anchors cover the padding too; proposals are clipped to `image_sizes`, (height, width) without the padding.
        """
        return self.propose([self.rpn_head(feature) for feature in features], features, image_sizes)

    def propose(
        self,
        predictions: Sequence[tuple[torch.Tensor, torch.Tensor]],
        features: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The second half of `forward`, from the head's output on each level."""
        boxes, scores, levels = [], [], []
        for level, (feature, (logits, deltas)) in enumerate(zip(features, predictions, strict=True)):
            best, index = logits.topk(min(TOP_PER_LEVEL, logits.shape[1]), dim=1)
            anchors = make_anchors(feature.shape[2], feature.shape[3], level, feature.device)[index]
            chosen = deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(apply_deltas(chosen, anchors, DELTA_WEIGHTS))
            scores.append(best)
            levels.append(torch.full_like(index[0], level))
        all_boxes, all_scores, all_levels = torch.cat(boxes, dim=1), torch.cat(scores, dim=1), torch.cat(levels)
        selected = (
            select_proposals(all_boxes[i], all_scores[i], all_levels, size) for i, size in enumerate(image_sizes)
        )
        return [(kept[: self.proposals], logits[: self.proposals]) for kept, logits in selected]


def select_proposals(
    boxes: torch.Tensor, logits: torch.Tensor, levels: torch.Tensor, image_size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip, drop empty boxes and apply NMS within each level: boxes [P, 4] and logits [P], best first.

    detectron2 calls torchvision's `batched_nms` too, whose choice between one pass per level and one pass over shifted
    boxes (by their number) affects the result. Raises EnvironmentStop where no value is finite.
    """
    finite, clipped = finite_rows(boxes, logits), clip(boxes, image_size)
    valid = (finite & nonempty(clipped)).nonzero()[:, 0]
    if not len(valid) and not finite.any():
        raise EnvironmentStop(
            "the proposal network computed no finite number: the checkpoint is damaged, or fp16 overflows with it "
            "(then set numerics.precision to fp32 or bf16)"
        )
    boxes, logits, levels = clipped[valid], logits[valid], levels[valid]
    keep = batched_nms(boxes, logits, levels, NMS_IOU)
    return boxes[keep], logits[keep]
