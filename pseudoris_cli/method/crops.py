"""Square crops of masks for the captioner and the scorer, computed on the device for all masks of several images.

Pseudo-RIS takes four crops of a mask: the object on a flat background (`masked`), and the image within the mask's box
enlarged by 1.0, 1.1 and 1.2. Style `released` reproduces the authors' script: the box lacks its last row and column,
padding and background are the raw mean in an image that is already normalised, and the resize does not antialias. Style
`mended` takes the complete box, fills with the mean colour (0 after normalisation) and antialiases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from pseudoris_cli.records import CropKind, Mask, MaskedImage
from pseudoris_cli.rle import decode_rle, rle_bbox
from pseudoris_cli.settings.models import CropStyle

_MARGIN: dict[CropKind, float] = {"masked": 1.0, "crop_1.0": 1.0, "crop_1.1": 1.1, "crop_1.2": 1.2}
_BUCKET = 32
"""Canvas sides are multiples of this, so that the terms of a crop's sums depend on its own size, not on its neighbours."""
_PIXELS = 1 << 22
"""Canvas pixels resized together; bounds memory."""


Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, slots=True)
class CropSpec:
    """The network's input: side in pixels, mean and standard deviation of RGB in 0..1, and the style of the crops."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    style: CropStyle
    interpolation: Interpolation = "bilinear"
    """Of style `mended`; `released` is bilinear always."""


@dataclass(frozen=True, slots=True)
class Window:
    """A crop: the pixel rectangle cut from the image; it is centred on a square canvas."""

    left: int
    top: int
    width: int
    height: int

    @property
    def side(self) -> int:
        return max(self.width, self.height, 1)

    @property
    def pad(self) -> tuple[int, int]:
        """Canvas columns left of and rows above the rectangle."""
        return (self.side - self.width) // 2, (self.side - self.height) // 2


def crop_window(box_xywh: Sequence[float], kind: CropKind, style: CropStyle, image_wh: tuple[int, int]) -> Window:
    """The rectangle of one crop: enlarged about its centre, clipped to the image, truncated to integer pixels.

    `box_xywh` is in pixels, its maximum inclusive (width = xmax - xmin + 1). The expressions keep the order of the release,
    since truncation makes rounding matter.
    """
    lost = 1 if style == "released" else 0
    x0, y0 = float(box_xywh[0]), float(box_xywh[1])
    x1, y1 = x0 + float(box_xywh[2]) - lost, y0 + float(box_xywh[3]) - lost
    margin = _MARGIN[kind]
    grow_x, grow_y = (margin * (x1 - x0) - (x1 - x0)) / 2, (margin * (y1 - y0) - (y1 - y0)) / 2
    x0, x1 = max(x0 - grow_x, 0.0), min(x1 + grow_x, image_wh[0])
    y0, y1 = max(y0 - grow_y, 0.0), min(y1 + grow_y, image_wh[1])
    return Window(int(x0), int(y0), int(x1 - x0), int(y1 - y0))


def make_crops(
    images: Sequence[MaskedImage], kinds: Sequence[CropKind], spec: CropSpec, device: str | torch.device
) -> dict[CropKind, torch.Tensor]:
    """Every crop of every mask, normalised RGB: per kind float32 [sum of masks, 3, size, size] in the order of the masks.

    A crop is the same whichever other crops are made in the same call, but for the rounding of its matrix products, whose kernel
    may be chosen by how many there are.
    """
    pixels = _Pixels(images, "masked" in kinds, device)
    count = len(pixels.masks)
    jobs: list[tuple[CropKind, int, Window]] = []
    for kind in kinds:
        for index, (image, mask) in enumerate(pixels.masks):
            wh = images[image].image_rgb.shape[1], images[image].image_rgb.shape[0]
            jobs.append((kind, index, crop_window(rle_bbox(mask.rle), kind, spec.style, wh)))
    out = torch.empty(len(jobs), 3, spec.size, spec.size, device=device)
    buckets = list(_buckets([window.side for _, _, window in jobs]))
    order = [row for _, rows in buckets for row in rows]
    windows, first = _Windows.of([jobs[row] for row in order], order, device), 0
    for canvas, rows in buckets:
        here, first = windows.part(slice(first, first + len(rows))), first + len(rows)
        squares = pixels.canvases(here, canvas, spec)
        across = _resize_weights(here.side, canvas, spec)
        out[here.row] = torch.matmul(torch.matmul(across[:, None], squares), across[:, None].transpose(2, 3))
    return {kind: out[index * count : (index + 1) * count] for index, kind in enumerate(kinds)}


def _buckets(sides: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(canvas side, rows) of crops that are resized together."""
    by_canvas: dict[int, list[int]] = {}
    for row, side in enumerate(sides):
        by_canvas.setdefault(-(-side // _BUCKET) * _BUCKET, []).append(row)
    for canvas, rows in sorted(by_canvas.items()):
        step = max(1, _PIXELS // canvas**2)
        for start in range(0, len(rows), step):
            yield canvas, rows[start : start + step]


@dataclass(frozen=True, slots=True)
class _Windows:
    """C windows as int64 columns [C] on the device, uploaded at once, as the host waits for every upload.

    `row` is the place among the call's crops, `mask` the index of the mask within the call, `masked` 1 for crops of that kind.
    """

    row: torch.Tensor
    masked: torch.Tensor
    mask: torch.Tensor
    left: torch.Tensor
    top: torch.Tensor
    width: torch.Tensor
    height: torch.Tensor
    side: torch.Tensor
    pad_left: torch.Tensor
    pad_top: torch.Tensor

    @classmethod
    def of(
        cls, jobs: Sequence[tuple[CropKind, int, Window]], places: Sequence[int], device: str | torch.device
    ) -> _Windows:
        rows = [
            (place, kind == "masked", m, w.left, w.top, w.width, w.height, w.side, *w.pad)
            for place, (kind, m, w) in zip(places, jobs, strict=True)
        ]
        return cls(*torch.tensor(rows, dtype=torch.int64, device=device).view(-1, 10).unbind(1))

    def part(self, some: slice) -> _Windows:
        return _Windows(*(getattr(self, column.name)[some] for column in fields(self)))


class _Pixels:
    """The pixels of several images and of their masks' boxes in flat buffers on the device, so that one gather reads all."""

    def __init__(self, images: Sequence[MaskedImage], with_masks: bool, device: str | torch.device) -> None:
        self.masks: list[tuple[int, Mask]] = [(i, mask) for i, image in enumerate(images) for mask in image.masks]
        flat = [np.ascontiguousarray(image.image_rgb).reshape(-1, 3) for image in images]
        self.rgb = torch.from_numpy(np.concatenate(flat or [np.zeros((0, 3), np.uint8)])).to(device)
        image_start = np.cumsum([0, *map(len, flat)])
        own = [(image_start[i], images[i].image_rgb.shape[1]) for i, _ in self.masks]
        boxes = np.array([rle_bbox(mask.rle) for _, mask in self.masks], int).reshape(-1, 4)
        start = np.cumsum([0, *(boxes[:, 2] * boxes[:, 3])])[:-1] if with_masks else np.zeros(len(boxes), int)
        table = np.column_stack([np.array(own, int).reshape(-1, 2), boxes, start])
        self.table = torch.from_numpy(table).to(device)
        inside = [_inside(mask, *box) for (_, mask), box in zip(self.masks, boxes, strict=True)] if with_masks else []
        self.inside = torch.from_numpy(np.concatenate([*inside, np.zeros(1, bool)])).to(device)

    def canvases(self, windows: _Windows, canvas: int, spec: CropSpec) -> torch.Tensor:
        """The padded squares before resizing, normalised: float32 [C, 3, canvas, canvas]."""
        grid = torch.arange(canvas, device=self.rgb.device)
        x, y = grid - windows.pad_left[:, None], grid - windows.pad_top[:, None]
        in_x, in_y = (x >= 0) & (x < windows.width[:, None]), (y >= 0) & (y < windows.height[:, None])
        shown = in_x[:, None, :] & in_y[:, :, None]
        x, y = (x + windows.left[:, None])[:, None, :], (y + windows.top[:, None])[:, :, None]
        masked = windows.masked.bool()
        image_start, image_width, left, top, width, _, start = self.table[windows.mask].T[:, :, None, None]
        offset = image_start + y * image_width + x
        rgb = self.rgb[offset.masked_fill_(~shown, 0)].permute(0, 3, 1, 2).float()
        offset = (start + (y - top) * width + (x - left)).masked_fill_(~(shown & masked[:, None, None]), 0)
        shown &= self.inside[offset] | ~masked[:, None, None]
        mean, std = (_constant(v, rgb.device)[:, None, None] for v in (spec.mean, spec.std))
        fill = mean if spec.style == "released" else torch.zeros_like(mean)
        return torch.where(shown[:, None], rgb.div_(255.0).sub_(mean).div_(std), fill)


@lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device)


def _inside(mask: Mask, x: int, y: int, width: int, height: int) -> np.ndarray:
    """The pixels of the mask within its box, row-major."""
    return decode_rle(mask.rle)[y : y + height, x : x + width].ravel()


def _resize_weights(sides: torch.Tensor, canvas: int, spec: CropSpec) -> torch.Tensor:
    """Weights float32 [C, size, canvas] that resize squares of `sides` pixels to `size`; 0 beyond the side.

    As torch.nn.functional.interpolate with align_corners=False, with antialiasing for style `mended`.
    """
    side = sides.to(torch.float32)[:, None, None]
    scale = side / spec.size
    out = torch.arange(spec.size, device=sides.device, dtype=torch.float32)[:, None] + 0.5
    source = torch.arange(canvas, device=sides.device, dtype=torch.float32)
    if spec.style == "released":
        centre = (out * scale - 0.5).clamp(min=0.0)
        weights = (1 - (source - centre).abs()).clamp(min=0.0)
        weights = torch.where(source < side, weights, 0.0)
    else:
        width = scale.clamp(min=1.0)
        distance = ((source + 0.5 - out * scale) / width).abs()
        weights = _cubic(distance) if spec.interpolation == "bicubic" else (1 - distance).clamp(min=0.0)
        weights = torch.where(source < side, weights, 0.0)
    return weights / weights.sum(2, keepdim=True)


def _cubic(distance: torch.Tensor) -> torch.Tensor:
    """Keys' cubic kernel with a = -0.5, as antialiased resizes have it (Pillow's, torch's)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
