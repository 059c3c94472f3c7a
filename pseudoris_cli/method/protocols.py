"""What a backend must offer. A stage knows these protocols and nothing else about a network.

A backend is one file in this folder. Its name is the value of the `backend` setting; it defines

* `Settings`, a frozen pydantic model derived from `pseudoris_cli.settings.models.BackendSettings`,
* `Settings.tiny()`, a configuration that builds in a second on a CPU with `checkpoint: random:0`,
* `load(settings, numerics, device)`, which imports torch, reads the checkpoint and returns what meets a protocol below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pseudoris_cli.records import Caption, Category, MaskedImage, Rle

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """A class-agnostic mask from an automatic mask generator. `bbox` is xywh with inclusive maximum."""

    rle: Rle
    area: int
    bbox: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object found by a detector: its mask in the image's frame and its score; `category` where somebody labelled it."""

    rle: Rle
    score: float
    category: Category | None = None


class Segmenter(Protocol):
    """Every mask of an image (segment_anything's SamAutomaticMaskGenerator is the model)."""

    def segment(self, images_rgb: Sequence[np.ndarray]) -> list[list[Segment]]:
        """Segment each [H, W, 3] uint8 RGB image; sizes may differ. Order within an image is the generator's own."""
        ...


class Proposer(Protocol):
    """The objects of an image (CutLER is the model)."""

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """Detect in each [H, W, 3] uint8 RGB image; sorted by falling score. `keys` name the images (own-mask files need them)."""
        ...


class Captioner(Protocol):
    """Candidate expressions for every mask of an image."""

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """Captions of each image, mask by mask, candidate ids 0.. within a mask; the same whatever else is in the batch."""
        ...


class Scorer(Protocol):
    """A joint image-text embedding."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: str

    def encode_images(self, crops: torch.Tensor) -> torch.Tensor:
        """Normalised crops [N, 3, size, size] to unit vectors [N, D]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts to unit vectors [N, D]; texts beyond the context length are cut."""
        ...


class NounFinder(Protocol):
    """The head noun of a caption."""

    def nouns(self, captions: Sequence[str]) -> list[str]:
        """One word (or the text itself where no noun chunk holds the head) for each caption; '' for an empty caption."""
        ...
