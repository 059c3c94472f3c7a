"""The plain values that modules exchange: images, masks, captions and failures.

Conventions used everywhere: images are RGB, uint8, [H, W, 3], turned upright by their EXIF orientation;
boxes are COCO's [x, y, width, height] in pixels with an inclusive maximum (width = xmax - xmin + 1);
masks are COCO run-length codes in the same upright frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

CropKind: TypeAlias = Literal["masked", "crop_1.0", "crop_1.1", "crop_1.2"]
CROP_KINDS: tuple[CropKind, ...] = ("masked", "crop_1.0", "crop_1.1", "crop_1.2")
"""The crops of a mask that we make ourselves. Captioners may record other names in `Caption.crop`."""
ImageStatus: TypeAlias = Literal["done", "empty", "failed", "gone"]
Category: TypeAlias = tuple[int, str]
"""Id and name of what a mask shows; only masks that somebody labelled have one."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of the source, before any pixel is read. `key` is its POSIX path within the source."""

    key: str
    image_id: int
    file_name: str


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as COCO's compressed run-length code (columns first, the first run is background).

    `counts` is the ASCII text that pycocotools writes, decoded to `str`.
    """

    height: int
    width: int
    counts: str

    def to_coco(self) -> dict[str, Any]:
        """COCO's form of it, `{"size": [height, width], "counts": str}`: valid JSON, and pycocotools accepts it."""
        return {"size": [self.height, self.width], "counts": self.counts}


@dataclass(frozen=True, slots=True)
class Mask:
    """A pseudo-mask: one object of one image."""

    mask_id: int
    rle: Rle
    bbox: tuple[float, float, float, float]
    area: int
    predicted_iou: float
    stability_score: float
    detector_score: float | None = None
    match_iou: float | None = None
    category: Category | None = None


@dataclass(frozen=True, slots=True)
class Caption:
    """A candidate expression for one mask, with its provenance.

    `crop` names what the captioner saw: one of CROP_KINDS, or a name of the captioner's own (`marks+crop`, say).
    `sampler` names how the words were drawn (`beam`, `top_k=5`, ...). `logprob` is the sum over its `tokens` tokens.
    """

    mask_id: int
    candidate_id: int
    caption: str
    crop: str
    sampler: str
    logprob: float
    tokens: int


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image with its masks: what the captioner and the scorer look at."""

    key: str
    image_rgb: np.ndarray
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no rows. `status` is `failed` or `gone`."""

    reason: str
    status: ImageStatus = "failed"
