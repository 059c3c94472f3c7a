"""Box arithmetic: box deltas, clipping, areas. Always float32, whatever the network's precision."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

LARGEST_LOG_SCALE = math.log(1000 / 16)
"""Upper bound of the log scale of widths and heights, as in detectron2; shrinking is not bounded."""

Weights = tuple[float, float, float, float]


def centres_and_sides(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [..., 4] as centres [..., 2] and sides (width, height) [..., 2]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def apply_deltas(deltas: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Apply box deltas [..., 4], divided by `weights`, to boxes [..., 4] (Girshick et al., 2014, appendix C)."""
    offsets = deltas.float() / constant(weights, deltas.device)
    centres, sides = centres_and_sides(boxes)
    centres = offsets[..., :2] * sides + centres
    sides = offsets[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() * sides
    return torch.cat([centres - 0.5 * sides, centres + 0.5 * sides], dim=-1)


def clip(boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Boxes clipped to the image (height, width); a coordinate that is NaN becomes 0, so that no kernel gets one."""
    height, width = image_size
    inside = boxes.nan_to_num(0.0).clamp(min=0)
    x, y = inside[..., 0::2].clamp(max=width), inside[..., 1::2].clamp(max=height)
    return torch.stack([x, y], -1).flatten(-2)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Numbers that never change, float32 on the device: uploaded once, as the host waits for every upload."""
    with torch.inference_mode(False):  # training uses them too
        return torch.tensor(values, dtype=torch.float32, device=device)


def areas(boxes: torch.Tensor) -> torch.Tensor:
    """Areas [N] of boxes [N, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nonempty(boxes: torch.Tensor) -> torch.Tensor:
    """Whether each box has a width and a height above 0, bool [N]."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def finite_rows(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Whether the box and the score of each row are finite, bool [N]."""
    return boxes.isfinite().all(dim=1) & scores.isfinite()
