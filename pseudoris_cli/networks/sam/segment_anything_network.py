"""segment_anything's network (Kirillov et al., 2023) as the automatic mask generator uses it, with one form of its decoder.

With the official decoder every step that rounds is the official one: encoder, decoder, resizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import build_point_grid
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from pseudoris_cli.networks.sam.decoder import OfficialDecoder, PromptDecoder
from pseudoris_cli.networks.sam.encoder import encode
from pseudoris_cli.networks.sam.promptable import Decoded, PromptableNetwork, Size
from pseudoris_cli.networks.sam.resize import AxisResize, compose, resize_columns_first
from pseudoris_cli.networks.transfers import upload


class SegmentAnything(PromptableNetwork):
    """A `PromptableNetwork`: crops are resized to the longest side of a square and padded. Embeddings are [1, C, h, w]."""

    strictly_stable = False

    def __init__(self, sam: Sam, decoder: PromptDecoder) -> None:
        self.sam, self.decoder, self.chunk = sam, decoder, decoder.chunk
        self.plain = isinstance(decoder, OfficialDecoder)
        self.encoder: Callable[[Tensor], Tensor] = (
            sam.image_encoder if self.plain else partial(encode, sam.image_encoder)
        )
        self.square = sam.image_encoder.img_size
        self.transform = ResizeLongestSide(self.square)
        self.device, self.mask_threshold = sam.pixel_mean.device, sam.mask_threshold

    def compile(self) -> None:
        """Compile the hot functions: the encoder's MLPs (its attention is one fused call already) and the decoder's chunk."""
        for block in self.sam.image_encoder.blocks:
            block.mlp.compile()
        self.decoder.compile()

    def fits(self, size: Size) -> bool:
        """See PromptableNetwork; where there are no pixels the official generator fails."""
        return 0 not in size and 0 not in self._covered(size)

    def grid(self, points_per_side: int) -> np.ndarray:
        """See PromptableNetwork."""
        return build_point_grid(points_per_side)

    def pixels(self, crop: np.ndarray) -> Tensor:
        """See PromptableNetwork: uint8 [3, h, w], resized."""
        return torch.from_numpy(self.transform.apply_image(np.ascontiguousarray(crop))).permute(2, 0, 1)

    def encode(self, crops: Sequence[Tensor]) -> list[Tensor]:
        """See PromptableNetwork."""
        pixels = torch.stack([self.sam.preprocess(upload(crop, self.device)) for crop in crops])
        pixels = pixels.to(self.sam.image_encoder.patch_embed.proj.weight.dtype)
        return [embedding[None] for embedding in self.encoder(pixels)]

    def set_crop(self, embedding: Tensor, size: Size) -> None:
        """See PromptableNetwork."""
        self.size, self.covered = size, self._covered(size)
        self.axes = self._resizes(size, self.covered)
        self.decoder.set_image(embedding, (-(-self.axes[0].inputs // 4), -(-self.axes[1].inputs // 4)))

    def decode(self, points: np.ndarray, min_iou: float | None) -> Decoded:
        """See PromptableNetwork."""
        height, width = self.size
        in_frame = self.transform.apply_coords(points * np.array([[width, height]]), self.size)
        return self.decoder.decode(self._embed(in_frame), min_iou)

    def release(self) -> None:
        """See PromptableNetwork."""
        self.decoder.release()

    def resize(self, logits: Tensor) -> Tensor:
        """See PromptableNetwork."""
        if self.plain:
            pixels = self.sam.postprocess_masks(logits[None], self.covered, self.size)[0]
            return pixels.transpose(1, 2).flatten(1)
        return resize_columns_first(logits, *self.axes).flatten(1)

    def _covered(self, size: Size) -> Size:
        """The part of the padded square that a crop covers."""
        height, width = self.transform.get_preprocess_shape(*size, self.square)
        return height, width

    def _resizes(self, size: Size, covered: Size) -> tuple[AxisResize, AxisResize]:
        """The vertical and horizontal resize of mask logits to the crop's pixels."""
        logits = [4 * side for side in self.sam.prompt_encoder.image_embedding_size]
        vertical, horizontal = (
            _compose(logits[axis], self.square, covered[axis], size[axis], self.device) for axis in (0, 1)
        )
        return vertical, horizontal

    def _embed(self, points: np.ndarray) -> Tensor:
        """Sparse prompt embeddings [P, 2, C] of single foreground points (x, y) in the network's frame."""
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        coords = upload(torch.as_tensor(points, dtype=exact), self.device)[:, None]
        encoder = self.sam.prompt_encoder
        if self.plain:
            labels = torch.ones(len(points), 1, dtype=torch.int, device=self.device)
            return encoder(points=(coords, labels), boxes=None, masks=None)[0]
        # what the encoder does for one foreground point and the padding point, without its five selections by label
        pair = torch.cat([coords + 0.5, torch.zeros_like(coords)], 1)
        found = encoder.pe_layer.forward_with_coords(pair, encoder.input_image_size)
        found[:, 0] += encoder.point_embeddings[1].weight[0]
        found[:, 1] = encoder.not_a_point_embed.weight[0]
        return found


@lru_cache(maxsize=64)
def _compose(logits: int, square: int, covered: int, outputs: int, device: torch.device) -> AxisResize:
    return compose(logits, square, covered, outputs, device)
