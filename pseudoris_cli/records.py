"""The plain values that modules exchange: images, masks, captions and failures.

Conventions of the whole package: images are RGB, uint8, [H, W, 3], turned upright by their EXIF orientation;
boxes are COCO's [x, y, width, height] in pixels with an inclusive maximum (width = xmax - xmin + 1);
masks are COCO run-length encodings in the same upright frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import numpy as np

CropKind: TypeAlias = Literal["masked", "crop_1.0", "crop_1.1", "crop_1.2"]
CROP_KINDS: tuple[CropKind, ...] = ("masked", "crop_1.0", "crop_1.1", "crop_1.2")
"""The crops of a mask that we make ourselves. Captioners may record other names in `Caption.crop`."""
ImageStatus: TypeAlias = Literal["done", "empty", "failed", "gone"]
Category: TypeAlias = tuple[int, str]
"""Id and name of the class of a mask; only masks of labelled data have one."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One image of the source, not yet read. `key` is its POSIX path within the source."""

    key: str
    image_id: int
    file_name: str
    name: str | None = None
    """Its name within a container (a tar, a Parquet file), where it lies in one."""

    @property
    def drawn_as(self) -> str:
        """What random numbers are keyed by: the same for a picture in a folder and in a container."""
        return self.name or self.key


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes and modification time, to notice a change without reading.

    Of an image in a container they are the container's. Where there is no such time, `mtime_ns` is 63 bits of a digest of what
    a server tells files apart by (the ETag).
    """

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Rle:
    """A mask as COCO's compressed run-length encoding (column-major, the first run is background).

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
    """A pseudo-mask: one object of one image. `bbox` is xywh and `area` in pixels; `match_iou` is the IoU of mask and detection."""

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
    `kind` says what tells the object apart (attribute, position, ...), where the captioner says so.
    """

    mask_id: int
    candidate_id: int
    caption: str
    crop: str
    sampler: str
    logprob: float
    tokens: int
    kind: str | None = None


class CaptionCandidate(NamedTuple):
    """A caption to be scored: the part of `Caption` that the scorer needs."""

    mask_id: int
    candidate_id: int
    caption: str


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image with its masks, the input of the captioner and the scorer."""

    key: str
    image_rgb: np.ndarray
    masks: tuple[Mask, ...]
    drawn_as: str = ""
    """What random numbers are keyed by, `ImageRef.drawn_as`; the key where it is empty."""

    def __post_init__(self) -> None:
        if not self.drawn_as:
            object.__setattr__(self, "drawn_as", self.key)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an image has no rows. `status` is `failed` or `gone`."""

    reason: str
    status: ImageStatus = "failed"
