"""Preprocessing of images (resize, normalise, pad) and pasting of masks into the image."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from pseudoris_cli.networks.cascade_rcnn.boxes import clip, constant, nonempty
from pseudoris_cli.networks.cascade_rcnn.roi_heads import Detections

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""ImageNet statistics in RGB order; they are applied to the channels in whatever colour order the image has."""
PADDING_MULTIPLE = 32


def network_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """(height, width) of the network's input: shortest edge `min_size`, unless the longest would exceed `max_size`.

    At least one pixel, where detectron2 would compute 0.
    """
    scale = min_size / min(height, width)
    tall, wide = (min_size, scale * width) if height < width else (scale * height, min_size)
    if max(tall, wide) > max_size:
        shrink = max_size / max(tall, wide)
        tall, wide = tall * shrink, wide * shrink
    return max(1, int(tall + 0.5)), max(1, int(wide + 0.5))


def padded_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size that an input is padded to, the next multiples of 32."""
    height, width = (-(-side // PADDING_MULTIPLE) * PADDING_MULTIPLE for side in size)
    return height, width


def resize(image: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """A uint8 image [H, W, 3] at the network's size, by Pillow's bilinear filter (antialiased when shrinking)."""
    height, width = network_size(image.shape[0], image.shape[1], min_size, max_size)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def normalise(image: np.ndarray, device: str) -> torch.Tensor:
    """A uint8 image [h, w, 3] as float32 [3, H, W], normalised and then padded with zeros at the right and below."""
    height, width = image.shape[:2]
    pixels = torch.tensor(image).to(device).permute(2, 0, 1).float()
    mean, std = (constant(values, pixels.device)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    to_height, to_width = padded_size((height, width))
    return F.pad((pixels - mean) / std, (0, to_width - width, 0, to_height - height))


def to_frame(found: Detections, network: tuple[int, int], frame: tuple[int, int]) -> Detections:
    """Detections scaled from `network` to `frame`, both (height, width), and clipped; boxes that become empty are dropped."""
    scale = torch.tensor([frame[1] / network[1], frame[0] / network[0]] * 2, device=found.boxes.device)
    boxes = clip(found.boxes * scale, frame)
    keep = nonempty(boxes).nonzero()[:, 0]
    return Detections(boxes[keep], found.scores[keep], found.mask_probabilities[keep])


def paste_masks(found: Detections, frame: tuple[int, int]) -> Iterator[np.ndarray]:
    """The mask of each detection (already in the frame) as bool [H, W]: probability at a pixel's centre >= 0.5.

    Probabilities are interpolated bilinearly between cell centres, with 0 outside the box, so no mask extends beyond its
    box. Each array is overwritten by the next.
    """
    boxes, probabilities = found.boxes.float().cpu(), found.mask_probabilities.float().cpu()
    canvas = np.zeros(frame, bool, order="F")
    for box, cells in zip(boxes, probabilities, strict=True):
        x0, y0 = (int(side) for side in box[:2].floor())
        x1, y1 = (int(side) for side in box[2:].ceil())
        y = (torch.arange(y0, y1) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        x = (torch.arange(x0, x1) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
        values = F.grid_sample(cells[None, None], grid[None], align_corners=False)[0, 0]
        canvas[y0:y1, x0:x1] = (values >= 0.5).numpy()
        yield canvas
        canvas[y0:y1, x0:x1] = False
