"""The polygons of an export: made once for each mask, whatever the number of formats, and each checked by rasterising it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pseudoris_cli.records import Mask

if TYPE_CHECKING:
    from pseudoris_cli.codecs.mask_polygons import Rings

LOW_IOU = 0.95
"""Masks whose polygons give back less than this are named in the summary."""
MOST_NAMES = 20


class Polygons:
    """Gives the polygons of masks and counts how many pycocotools turns back into just the same mask."""

    def __init__(self) -> None:
        self._image_key = ""
        self._rings: dict[int, Rings] = {}
        self._masks = self._exact = self._low = 0
        self._worst = 1.0
        self._names: list[dict[str, Any]] = []

    def of(self, image_key: str, mask: Mask) -> Rings:
        """Flat rings [x1, y1, x2, y2, ...] (`codecs.mask_polygons.to_polygons`). Only those of the last image are remembered."""
        from pseudoris_cli.codecs.mask_polygons import polygon_iou, to_polygons  # numpy: not on the way to --help

        if image_key != self._image_key:
            self._image_key, self._rings = image_key, {}
        if mask.mask_id not in self._rings:
            rings = self._rings[mask.mask_id] = to_polygons(mask.rle)
            self._count(image_key, mask.mask_id, polygon_iou(mask.rle, rings))
        return self._rings[mask.mask_id]

    def _count(self, image_key: str, mask_id: int, iou: float) -> None:
        self._masks += 1
        self._exact += iou == 1
        self._worst = min(self._worst, iou)
        if iou < LOW_IOU:
            self._low += 1
            if len(self._names) < MOST_NAMES:
                self._names.append({"image_key": image_key, "mask_id": mask_id, "iou": round(iou, 4)})

    def figures(self) -> dict[str, Any] | None:
        """Counts, the worst IoU and the first masks below LOW_IOU; None where no polygon was asked for."""
        if not self._masks:
            return None
        return {
            "masks": self._masks,
            "exact": self._exact,
            "worst_iou": round(self._worst, 4),
            "below": {"iou": LOW_IOU, "masks": self._low, "first": self._names},
        }


def describe(figures: dict[str, Any]) -> str:
    """`Polygons.figures` in words, for the summary of a command."""
    if figures["exact"] == figures["masks"]:
        return f"polygons: all {figures['masks']:,} masks come back exactly"
    text = f"polygons: {figures['exact']:,} of {figures['masks']:,} masks come back exactly, worst IoU {figures['worst_iou']}"
    below = figures["below"]
    if below["masks"]:
        names = ", ".join(f"{one['image_key']} mask {one['mask_id']} ({one['iou']})" for one in below["first"])
        more = ", ..." if below["masks"] > len(below["first"]) else ""
        text += f"; {below['masks']:,} below {below['iou']}: {names}{more}. `--segmentation rle` writes them exactly"
    return text
