"""The resize of SAM's mask logits to the image's pixels in one step.

`Sam.postprocess_masks` enlarges every mask to the padded square (1024 x 1024), cuts the padding off and resizes to the image. Both
steps are linear and separable, so for each axis they compose into one matrix with at most three non-zero weights a row. It is
computed by passing the identity through the same two interpolations, so its weights are those of the official code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pseudoris_cli.networks.transfers import upload

BLOCK = 64
"""Output pixels in a block; a block depends on few inputs, so it is a small dense product."""


@dataclass(frozen=True, slots=True)
class AxisResize:
    """One axis: blocks (first output, first input, weights [outputs, inputs]) and how many inputs the outputs depend on."""

    outputs: int
    inputs: int
    blocks: tuple[tuple[int, int, Tensor], ...]


def compose(logits: int, square: int, covered: int, outputs: int, device: torch.device) -> AxisResize:
    """`logits` mask pixels -> `square` network pixels, of which the image covers `covered` -> `outputs` image pixels."""
    identity = torch.eye(logits)[None]
    enlarged = F.interpolate(identity, square, mode="linear", align_corners=False)[..., :covered]
    matrix = F.interpolate(enlarged, outputs, mode="linear", align_corners=False)[0].t()
    blocks = []
    for start in range(0, outputs, BLOCK):
        part = matrix[start : start + BLOCK]
        read = part.any(0).nonzero()[:, 0]
        first, last = int(read[0]), int(read[-1]) + 1
        blocks.append((start, first, upload(part[:, first:last].contiguous(), device)))
    inputs = max(first + weights.shape[1] for _, first, weights in blocks)
    return AxisResize(outputs, inputs, tuple(blocks))


def resize_columns_first(logits: Tensor, vertical: AxisResize, horizontal: AxisResize) -> Tensor:
    """Logits [M, h, w] to [M, width, height]: image pixels in column-major order, as in COCO's run-length encoding.

    h and w may be smaller than the `logits` given to `compose`, down to `inputs`: pixels beyond are never read.
    """
    count, height, _ = logits.shape
    wide = logits.new_empty(count, horizontal.outputs, height)
    for start, first, weights in horizontal.blocks:
        part = logits[:, :, first : first + weights.shape[1]].transpose(1, 2)
        torch.bmm(weights.expand(count, -1, -1), part, out=wide[:, start : start + len(weights)])
    out = logits.new_empty(count, horizontal.outputs, vertical.outputs)
    for start, first, weights in vertical.blocks:
        part = wide[:, :, first : first + weights.shape[1]]
        torch.bmm(part, weights.t().expand(count, -1, -1), out=out[:, :, start : start + len(weights)])
    return out
