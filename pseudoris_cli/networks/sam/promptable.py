"""What the automatic mask generator asks of a network: crops to embeddings, points to mask logits, logits to image pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """The M masks of a chunk of prompts that pass the predicted-IoU filter, prompt by prompt, on the decoder's device.

    prompt [M] and mask [M] (0..2) int64, iou [M] float32, logits [M, h, w] float32 at the decoder's resolution.
    """

    prompt: Tensor
    mask: Tensor
    iou: Tensor
    logits: Tensor


class PromptableNetwork(Protocol):
    """A network of the Segment Anything family, bound to one crop at a time.

    `chunk`: points of one `decode`; `mask_threshold`: logits above it are foreground; `strictly_stable`: whether a mask must
    be more stable than the threshold, or as stable.
    """

    device: torch.device
    chunk: int
    mask_threshold: float
    strictly_stable: bool

    def compile(self) -> None:
        """Compile the functions that take the time."""
        ...

    def fits(self, size: Size) -> bool:
        """Whether a crop of this size has pixels at the network's size."""
        ...

    def grid(self, points_per_side: int) -> np.ndarray:
        """Evenly spaced points [n², 2] (x, y as fractions of a crop), row by row."""
        ...

    def pixels(self, crop: np.ndarray) -> Tensor:
        """What `encode` takes of a uint8 crop [H, W, 3] in the colour order of the network, on the CPU."""
        ...

    def encode(self, crops: Sequence[Tensor]) -> Iterable[Any]:
        """The embedding of each crop, computed together."""
        ...

    def set_crop(self, embedding: Any, size: Size) -> None:
        """Prepare `decode` and `resize` for the crop of this embedding and size."""
        ...

    def decode(self, points: np.ndarray, min_iou: float | None) -> Decoded:
        """The masks of at most `chunk` foreground points [P, 2] (x, y as fractions of the crop); with `min_iou`, those above."""
        ...

    def release(self) -> None:
        """Let go of what is kept from one `decode` to the next, after memory ran out."""

    def resize(self, logits: Tensor) -> Tensor:
        """Logits [M, h, w] of `decode` at the crop's pixels, column-major: [M, width·height] float32."""
        ...
