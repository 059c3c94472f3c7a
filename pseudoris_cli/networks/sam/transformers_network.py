"""Networks of transformers' Segment Anything family as the automatic mask generator uses them.

With the `official` form every step that rounds is that of transformers' `mask-generation` pipeline: image processor, encoder,
decoder, resizes, and a stability that must be above the threshold. SAM 2, SAM 3 and EdgeTAM squash a crop to a square and resize
mask logits in one step; SAM-HQ pads it, as SAM does.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pseudoris_cli.networks.sam.promptable import Decoded, PromptableNetwork, Size
from pseudoris_cli.networks.sam.resize import AxisResize, compose, resize_columns_first
from pseudoris_cli.networks.sam.transformers_decoder import Embedding
from pseudoris_cli.networks.transfers import upload


class TransformersSam(PromptableNetwork):
    """A `PromptableNetwork` over a model and its image processor.

    `scaled_grid`: put points where transformers' pipeline puts them, which for networks that squash an image leaves out a part of
    every image that is not square.
    """

    strictly_stable, mask_threshold = True, 0.0

    def __init__(self, model: Any, processor: Any, decoder: Any, scaled_grid: bool = False) -> None:
        self.model, self.processor, self.decoder, self.scaled_grid = model, processor, decoder, scaled_grid
        self.chunk, self.device = decoder.chunk, model.device
        self.plain = decoder.plain
        size = processor.size
        self.pads = bool(size.longest_edge)
        self.square = size.longest_edge or size.height
        self.logits = 4 * model.prompt_encoder.image_embedding_size[0]

    def compile(self) -> None:
        """Compile the encoder and the decoder's chunk."""
        self.model.vision_encoder.compile()
        self.decoder.compile()

    def fits(self, size: Size) -> bool:
        """See PromptableNetwork."""
        return 0 not in size and 0 not in self._covered(size)

    def grid(self, points_per_side: int) -> np.ndarray:
        """See PromptableNetwork; in float32, as transformers has it."""
        offset = 1 / (2 * points_per_side)
        side = torch.linspace(offset, 1 - offset, points_per_side)
        return torch.cartesian_prod(side, side).flip(1).numpy()

    def pixels(self, crop: np.ndarray) -> Tensor:
        """See PromptableNetwork: float32 [3, S, S], normalised."""
        done = self.processor(
            images=np.require(crop, requirements=["C", "W"]), input_data_format="channels_last", return_tensors="pt"
        )
        return done["pixel_values"][0]

    def encode(self, crops: Sequence[Tensor]) -> list[Embedding]:
        """See PromptableNetwork."""
        dtype = next(self.model.vision_encoder.parameters()).dtype
        found = self.model.get_image_embeddings(upload(torch.stack(list(crops)), self.device).to(dtype))
        if isinstance(found, tuple):  # SAM-HQ: embedding, then features of the encoder's blocks
            first, more = found
            return [(first[i : i + 1], *(one[i : i + 1] for one in more)) for i in range(len(crops))]
        *finer, last = found
        return [(last[i : i + 1], *(one[i : i + 1] for one in finer)) for i in range(len(crops))]

    def set_crop(self, embedding: Embedding, size: Size) -> None:
        """See PromptableNetwork."""
        self.size, self.covered = size, self._covered(size)
        square = self.square if self.pads else self.logits
        covered = self.covered if self.pads else (square, square)
        self.axes = tuple(_compose(self.logits, square, covered[i], size[i], self.device) for i in (0, 1))
        self.decoder.set_image(embedding, (-(-self.axes[0].inputs // 4), -(-self.axes[1].inputs // 4)))

    def decode(self, points: np.ndarray, min_iou: float | None) -> Decoded:
        """See PromptableNetwork."""
        coords = torch.as_tensor(points, dtype=torch.float32) * torch.tensor(self.size[::-1])
        coords = coords * torch.tensor([new / old for new, old in zip(self.covered, self.size, strict=True)][::-1])
        labels = torch.ones(1, len(points), 1, dtype=torch.int64, device=self.device)
        sparse, _ = self.model.prompt_encoder(
            input_points=upload(coords[None, :, None], self.device),
            input_labels=labels,
            input_boxes=None,
            input_masks=None,
        )
        return self.decoder.decode(sparse[0], min_iou)

    def release(self) -> None:
        """See PromptableNetwork."""
        self.decoder.release()

    def resize(self, logits: Tensor) -> Tensor:
        """See PromptableNetwork."""
        if not self.plain:
            vertical, horizontal = self.axes
            return resize_columns_first(logits, vertical, horizontal).flatten(1)
        found = logits[None]
        if self.pads:
            found = F.interpolate(found, (self.square, self.square), mode="bilinear", align_corners=False)
            found = found[..., : self.covered[0], : self.covered[1]]
        return F.interpolate(found, self.size, mode="bilinear", align_corners=False)[0].transpose(1, 2).flatten(1)

    def _covered(self, size: Size) -> Size:
        """Height and width of the square that a crop, or its grid of points, covers."""
        if not (self.pads or self.scaled_grid):
            return self.square, self.square
        scale = self.square / max(size)
        height, width = (int(side * scale + 0.5) for side in size)
        return height, width


@lru_cache(maxsize=64)
def _compose(logits: int, square: int, covered: int, outputs: int, device: torch.device) -> AxisResize:
    return compose(logits, square, covered, outputs, device)
