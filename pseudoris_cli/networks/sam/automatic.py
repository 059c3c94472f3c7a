"""Automatic mask generation: a grid of point prompts through SAM's decoder, filters and non-maximum suppression.

Reproduces segment_anything's `SamAutomaticMaskGenerator` (Kirillov et al., 2023, appendix B) on the same weights and settings:
point grid, crops, predicted-IoU and stability filters, thresholding, crop-edge filter, box NMS and removal of small regions, in the
same order and with the same order of results. It does less work: what masks are made of is transferred from the device once per
image, and only masks that survive NMS are encoded. What an image is turned into, how prompts are decoded and how logits become
pixels is the network's part (`promptable`): `segment_anything_network`, `transformers_network`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from segment_anything.utils.amg import generate_crop_boxes, is_box_near_crop_edge
from torch import Tensor
from torchvision.ops import batched_nms

from pseudoris_cli import watching
from pseudoris_cli.halving import Halving
from pseudoris_cli.networks.sam import run_lengths
from pseudoris_cli.networks.sam.mask_table import MaskRows, MaskTable, TablesUnderWay
from pseudoris_cli.networks.sam.promptable import PromptableNetwork
from pseudoris_cli.networks.sam.small_regions import remove_small_regions

CPU_PIXELS, CUDA_PIXELS = 1 << 22, 1 << 28
"""Mask pixels (float32) in memory at a time: 16 MB on a CPU, 1 GB on a GPU; at least one mask."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels."""


@dataclass(frozen=True, slots=True)
class AutomaticMaskSettings:
    """The settings of SamAutomaticMaskGenerator, by the same names and with the same meaning."""

    points_per_side: int
    pred_iou_thresh: float
    stability_score_thresh: float
    stability_score_offset: float
    box_nms_thresh: float
    crop_n_layers: int
    crop_nms_thresh: float
    crop_overlap_ratio: float
    crop_n_points_downscale_factor: int
    min_mask_region_area: int


@dataclass(frozen=True, slots=True)
class MaskCandidate:
    """A mask as its `edges` (see run_lengths). `edges` and `box_xyxy` (inclusive maximum) are in the frame of the crop `crop_xyxy`.

    `prompt` is the index of the point in the crop's grid, `mask` that of the decoder's output (0..2).
    """

    prompt: int
    mask: int
    predicted_iou: float
    stability_score: float
    edges: np.ndarray
    box_xyxy: Box
    crop_xyxy: Box

    def uncropped(self, height: int) -> MaskCandidate:
        """The same mask in the frame of the image, which has this height."""
        x0, y0, *_ = self.crop_xyxy
        x_min, y_min, x_max, y_max = self.box_xyxy
        box = (x_min + x0, y_min + y0, x_max + x0, y_max + y0)
        return replace(self, edges=run_lengths.uncrop(self.edges, self.crop_xyxy, height), box_xyxy=box)


@dataclass(frozen=True, slots=True)
class _Crop:
    """A crop of the image with this index: `pixels` is what the network's encoder takes; `last` of its image or not."""

    image: int
    box: Box
    layer: int
    last: bool
    pixels: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        x0, y0, x1, y1 = self.box
        return y1 - y0, x1 - x0


class AutomaticMasks:
    """Generates the masks of images with a promptable network.

    Where memory runs out the points of a decoder call are halved for the rest of that crop; `halving` counts it.
    With `gather`, for a GPU, several crops are encoded together: a quarter of a call's images, so that there is work for the
    device while the host reads results.
    """

    def __init__(self, network: PromptableNetwork, settings: AutomaticMaskSettings, gather: bool = False) -> None:
        self.network, self.settings, self.gather = network, settings, gather
        self.grids = [
            network.grid(int(settings.points_per_side / settings.crop_n_points_downscale_factor**layer))
            for layer in range(settings.crop_n_layers + 1)
        ]
        self.halving = Halving()
        self.pixels = CPU_PIXELS if network.device.type == "cpu" else CUDA_PIXELS

    @torch.inference_mode()
    def generate(self, images: Sequence[np.ndarray]) -> list[list[MaskCandidate]]:
        """The masks of each uint8 image [H, W, 3], in the colour order of the network: in SAM's order, in the image's frame.

        The host reads the masks of a batch of crops only once the encoding of the next is queued on the device.
        """
        found: list[list[MaskCandidate]] = [[] for _ in images]
        encoded, crops, tables = self._encoded(images), [], []
        batch = next(encoded, None)
        while batch:
            under_way: list[tuple[list[_Crop], TablesUnderWay]] = []
            for crop, embedding in batch:
                with watching.span(crop.image / len(images), (crop.image + 1) / len(images)):
                    tables.append(self.trace(embedding, crop.size, crop.layer))
                crops.append(crop)
                if crop.last:
                    under_way.append((crops, TablesUnderWay(tables)))
                    crops, tables = [], []
            batch = next(encoded, None)
            for of_image, masks in under_way:
                index = of_image[0].image
                found[index] = self._finished(of_image, masks.read(), images[index].shape[:2])
        return found

    def trace(self, embedding: Any, size: tuple[int, int], layer: int) -> MaskTable:
        """The masks of a crop of this size that pass the filters of predicted IoU and stability; the embedding is the network's."""
        network, points, table = self.network, self.grids[layer], MaskTable(size[0] * size[1])
        network.set_crop(embedding, size)
        # as in the official generator, which filters only above zero
        min_iou = self.settings.pred_iou_thresh if self.settings.pred_iou_thresh > 0 else None

        def decode(chunk: slice) -> MaskTable:
            watching.tell(chunk.start / len(points))
            decoded, found = network.decode(points[chunk], min_iou), MaskTable(table.pixels)
            step = max(1, self.pixels // table.pixels)
            for first in range(0, len(decoded.logits), step):
                part = slice(first, first + step)
                kept, stability, masks = self._threshold(network.resize(decoded.logits[part]))
                columns = (decoded.prompt[part][kept] + chunk.start, decoded.mask[part][kept], decoded.iou[part][kept])
                found.add(*columns, stability, masks)
            return found

        for found in self.halving.chunks(len(points), network.chunk, decode, network.release):
            table.append(found)
        return table

    def candidates(self, rows: MaskRows, box: Box, image_size: tuple[int, ...]) -> list[MaskCandidate]:
        """The masks of a crop that pass the filters, before NMS, in the crop's frame."""
        height, found = box[3] - box[1], []
        columns = (rows.prompt, rows.mask, rows.predicted_iou, rows.stability)
        for prompt, mask, iou, stability, edges in zip(*(one.tolist() for one in columns), rows.edges, strict=True):
            found.append(MaskCandidate(prompt, mask, iou, stability, edges, run_lengths.box_xyxy(edges, height), box))
        return self._off_crop_edges(found, box, image_size)

    def _finished(
        self, crops: Sequence[_Crop], rows: Sequence[MaskRows], image_size: tuple[int, int]
    ) -> list[MaskCandidate]:
        """The masks of an image from those of its crops."""
        found: list[MaskCandidate] = []
        for crop, of_crop in zip(crops, rows, strict=True):
            kept = self._unique(self.candidates(of_crop, crop.box, image_size))
            found += [candidate.uncropped(image_size[0]) for candidate in kept]
        if self.settings.crop_n_layers:
            found = self._unique_between_crops(found)
        if self.settings.min_mask_region_area:
            found = self._without_small_regions(found, *image_size)
        return found

    def _encoded(self, images: Sequence[np.ndarray]) -> Iterator[list[tuple[_Crop, Any]]]:
        """Every crop of every image with its embedding, in batches; see `gather`."""
        crops = self._crops(images)
        together = encoded_together(len(images)) if self.gather else 1
        chunk = list(islice(crops, together))
        while chunk:
            batch = list(zip(chunk, self.network.encode([crop.pixels for crop in chunk]), strict=True))
            chunk = list(islice(crops, together))  # resized while a device encodes
            yield batch

    def _crops(self, images: Sequence[np.ndarray]) -> Iterator[_Crop]:
        """The crops that have pixels at the network's size; those without have no masks."""
        for index, image in enumerate(images):
            boxes, layers = generate_crop_boxes(
                image.shape[:2], self.settings.crop_n_layers, self.settings.crop_overlap_ratio
            )
            fitting = [
                (box, layer)
                for box, layer in zip(boxes, layers, strict=True)
                if self.network.fits((box[3] - box[1], box[2] - box[0]))
            ]
            for number, ((x0, y0, x1, y1), layer) in enumerate(fitting):
                pixels = self.network.pixels(image[y0:y1, x0:x1])
                yield _Crop(index, (x0, y0, x1, y1), layer, number == len(fitting) - 1, pixels)

    def _threshold(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which of M masks (logits [M, pixels]) are stable, with the stability and the pixels of those that are."""
        settings, level = self.settings, self.network.mask_threshold
        inner = run_lengths.count_true(logits > level + settings.stability_score_offset)
        outer = run_lengths.count_true(logits > level - settings.stability_score_offset)
        stability = inner / outer
        if settings.stability_score_thresh > 0:
            least = settings.stability_score_thresh
            keep = stability > least if self.network.strictly_stable else stability >= least
        else:  # as in the official generator, which then keeps masks that are empty at both thresholds too
            keep = torch.ones_like(stability, dtype=torch.bool)
        kept = keep.nonzero()[:, 0]  # one wait, where a selection by `keep` would be one each
        masks = logits[kept] > level if logits.device.type != "cpu" else (logits > level)[kept]
        return kept, stability[kept], masks

    @staticmethod
    def _off_crop_edges(found: list[MaskCandidate], box: Box, image_size: tuple[int, ...]) -> list[MaskCandidate]:
        """Drop masks cut off by the crop, but not by the image."""
        height, width = image_size
        if not found or box == (0, 0, width, height):
            return found
        near = is_box_near_crop_edge(_boxes(found), list(box), [0, 0, width, height])
        return [candidate for candidate, cut in zip(found, near.tolist(), strict=True) if not cut]

    def _unique(self, found: list[MaskCandidate]) -> list[MaskCandidate]:
        """Box NMS within a crop, by predicted IoU."""
        return _nms(found, [candidate.predicted_iou for candidate in found], self.settings.box_nms_thresh)

    def _unique_between_crops(self, found: list[MaskCandidate]) -> list[MaskCandidate]:
        """Box NMS between crops; masks of smaller crops have priority."""
        boxes = [candidate.crop_xyxy for candidate in found]
        scores = [1 / ((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes]
        return _nms(found, scores, self.settings.crop_nms_thresh)

    def _without_small_regions(self, found: list[MaskCandidate], height: int, width: int) -> list[MaskCandidate]:
        """The masks without small holes and islands, then box NMS in which masks that had none have priority."""
        cleaned, untouched = [], []
        for mask in found:
            edges, small = remove_small_regions(mask.edges, height, height * width, self.settings.min_mask_region_area)
            cleaned.append(replace(mask, edges=edges, box_xyxy=run_lengths.box_xyxy(edges, height)))
            untouched.append(float(not small))
        return _nms(cleaned, untouched, max(self.settings.box_nms_thresh, self.settings.crop_nms_thresh))


def encoded_together(images: int) -> int:
    """Crops in a batch of the encoder on a GPU, in a call with so many images."""
    return max(1, images // 4)


def _boxes(found: list[MaskCandidate]) -> Tensor:
    return torch.tensor([candidate.box_xyxy for candidate in found], dtype=torch.float32)


def _nms(found: list[MaskCandidate], scores: list[float], threshold: float) -> list[MaskCandidate]:
    if not found:
        return found
    order = torch.tensor(scores, dtype=torch.float32)
    kept = batched_nms(_boxes(found), order, torch.zeros(len(found)), threshold)
    return [found[i] for i in kept.tolist()]
