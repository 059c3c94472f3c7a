"""Box arithmetic: coded offsets to boxes, clipping, areas. Always float32, whatever the network computes in."""

from __future__ import annotations

import math

import torch

LARGEST_LOG_SCALE = math.log(1000 / 16)
"""A coded width or height may enlarge a box by this much at most; shrinking is not bounded."""

Weights = tuple[float, float, float, float]


def centres_and_sides(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [..., 4] as centres [..., 2] and sides [..., 2]."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * sides, sides


def apply_deltas(deltas: torch.Tensor, boxes: torch.Tensor, weights: Weights) -> torch.Tensor:
    """Move boxes [..., 4] by coded offsets [..., 4] (Girshick et al., 2014, appendix C), divided by `weights` first."""
    offsets = deltas.float() / torch.tensor(weights, device=deltas.device)
    centres, sides = centres_and_sides(boxes)
    centres = offsets[..., :2] * sides + centres
    sides = offsets[..., 2:].clamp(max=LARGEST_LOG_SCALE).exp() * sides
    return torch.cat([centres - 0.5 * sides, centres + 0.5 * sides], dim=-1)


def clip(boxes: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
    """Boxes cut at the frame; a coordinate that is no number becomes 0, so that a broken row cannot reach a kernel."""
    height, width = image_size
    limits = torch.tensor([width, height, width, height], device=boxes.device, dtype=boxes.dtype)
    return torch.minimum(boxes.nan_to_num(0.0).clamp(min=0), limits)


def areas(boxes: torch.Tensor) -> torch.Tensor:
    """Areas [N] of boxes [N, 4]."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def nonempty(boxes: torch.Tensor) -> torch.Tensor:
    """Which boxes have a width and a height above 0, bool [N]."""
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def finite_rows(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Which rows hold numbers only, bool [N]."""
    return boxes.isfinite().all(dim=1) & scores.isfinite()
