"""The memory of the detector: backbone and pyramid of a batch, and the mask head of one image."""

from __future__ import annotations

from pseudoris_cli.networks.cascade_rcnn.detector import CascadeRCNN
from pseudoris_cli.networks.cascade_rcnn.resnet_fpn import Sizes
from pseudoris_cli.networks.cascade_rcnn.roi_heads import BOX_CELLS, MASK_CELLS, MOST_DETECTIONS
from pseudoris_cli.networks.memory import Memory, Work, on_meta, weights_of


def memory(sizes: Sizes, pixels: int, work: Work) -> Memory:
    """Of a detector of these sizes, for inputs of so many pixels (after the resize)."""
    weights = weights_of(on_meta(f"cascade {sizes}", lambda: CascadeRCNN(sizes)), lambda _: work.bytes)
    pyramid = work.images * pixels * 24.6 * sizes.stem / 64
    boxes = sizes.proposals * sizes.pyramid * BOX_CELLS**2 * (2 * work.bytes + 4)
    masks = MOST_DETECTIONS * sizes.mask_channels * (2 * MASK_CELLS) ** 2 * 3.5 * work.bytes
    return Memory(weights, pyramid * work.bytes + max(boxes, masks))
