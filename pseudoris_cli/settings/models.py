"""Settings: one frozen pydantic model per stage, defaults written once (they are the `paper` profile).

Nothing here imports torch. Backend settings live in `backends/<backend>.py` and are found by their file name.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

Channels = Literal["rgb", "bgr"]
CropStyle = Literal["mended", "released"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rank = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A group of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BackendSettings(Section):
    """Settings of one backend; the file name in `backends/` is the value of `backend`."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that change no result and so stay out of the version."""

    MASKS_ARE_FINAL: ClassVar[bool] = False
    """Of a proposer: its masks are the pseudo-masks as they are, no segmenter is asked."""

    backend: str

    @classmethod
    def tiny(cls) -> BackendSettings:
        """A configuration with random weights that builds and runs in about a second on a CPU."""
        raise NotImplementedError


def _pick_backend(value: Any) -> Any:
    """Turn a mapping into the Settings of the backend that it names."""
    if not isinstance(value, dict):
        return value
    name = str(value.get("backend", ""))
    if not name.isidentifier():
        raise ValueError(f"`backend` must name a file of pseudoris_cli/backends, not {name!r}")
    try:
        module = import_module(f"pseudoris_cli.backends.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no backend {name!r}") from error
    settings: type[BackendSettings] | None = getattr(module, "Settings", None)
    if settings is None:
        raise ValueError(f"{name!r} is not a backend")
    return settings.model_validate(value)


Backend = Annotated[SerializeAsAny[BackendSettings], BeforeValidator(_pick_backend)]


class Numerics(Section):
    """Arithmetic on the device; part of the version of every stage that uses a network."""

    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="storage and matmul type of the networks")
    tf32: bool = Field(False, description="allow TF32 in fp32 matmuls on CUDA")
    compile: bool = Field(False, description="torch.compile the hot functions")


class SourceSettings(Section):
    """How images are cut into parts and read."""

    part_size: int = Field(32, ge=1, le=4096, description="images in a part, the unit of work and of resuming")
    decode_threads: int = Field(2, ge=1, description="threads that read images ahead of the worker")
    decode_ahead: int = Field(16, ge=1, description="images read ahead of the worker")
    part_timeout: float | None = Field(None, gt=0, description="seconds a part may take before the run stops")


class MaskRules(Section):
    """What SAM's masks must satisfy when no detector chooses among them (proposals.backend: none)."""

    nms_iou: Fraction = Field(0.8, description="mask IoU above which the worse of two masks goes")
    containment: Fraction = Field(
        0.95, description="share of a mask inside another above which the worse of the two goes"
    )
    min_area: int = Field(100, ge=0, description="smallest mask, in pixels")
    max_area: Fraction = Field(0.6, description="largest mask, as a share of the image")


class MaskSettings(Section):
    """Stage 1 (paper §3.1)."""

    sam: Backend = Field(default_factory=lambda: _pick_backend({"backend": "sam"}), description="automatic masks")
    proposals: Backend = Field(
        default_factory=lambda: _pick_backend({"backend": "cascade_rcnn"}), description="which masks are objects"
    )
    match: Literal["iou", "overlap"] = Field("iou", description="how the SAM mask of a detection is chosen")
    match_min_iou: Fraction = Field(0.0, description="a detection whose best mask is below this is dropped")
    deduplicate: bool = Field(True, description="two detections on one SAM mask make one pseudo-mask")
    rules: MaskRules = MaskRules()
    max_per_image: int | None = Field(None, ge=1, description="most masks an image may have, best first")
    max_pixels: int = Field(40_000_000, ge=1, description="larger images are recorded as failed")
    image_batch: int = Field(4, ge=1, description="images that share an encoder batch")


class CaptionSettings(BackendSettings):
    """Stage 2: distinctive caption sampling (paper §3.2). A captioner's Settings add its checkpoint."""

    crop_style: CropStyle = Field("mended", description="boxes, fill and antialiasing of the crops")
    top_k: tuple[Rank, ...] = Field((5, 7, 9, 11, 13), description="top-k samplers, one caption each per crop")
    top_p: tuple[Share, ...] = Field((0.4, 0.5, 0.6, 0.7, 0.8), description="top-p samplers, one caption each per crop")
    beams: int = Field(2, ge=0, description="beam width of the one beam caption per crop; 0 for none")
    contrast: float = Field(1.0, ge=0, description="strength of the contrast; 0 is plain sampling")
    contrast_form: Literal["literal", "scale_preserving"] = Field(
        "literal",
        description="literal: the formula of the paper; scale_preserving: the same contrast with the logits' own scale",
    )
    contrast_max_masks: int | None = Field(None, ge=2, description="more masks than this: no contrast (release: 30)")
    similarity_clamp: float | None = Field(None, description="lower bound of the similarities in the contrast")
    pad_ends_row: bool = Field(False, description="a sampled token 0 ends the caption, as in the release")
    min_length: int = Field(5, ge=1, description="tokens (start included) before a caption may end")
    max_length: int = Field(30, ge=3, description="tokens of a caption, start and end included")
    seed: int = Field(0, ge=0, description="seed of the sampling")
    image_batch: int = Field(4, ge=1, description="images that are decoded together")
    row_chunk: int = Field(1024, ge=1, description="(row, crop) pairs in one decoder call; bounds memory")


class FilterSettings(Section):
    """Stage 3: distinctiveness of caption (paper §3.3)."""

    SCORES: ClassVar[tuple[str, ...]] = ("scorer", "nouns", "crop_style", "clamp", "doc_cap", "image_batch")
    """The settings that decide scores; the others only select and so recompute no score."""

    scorer: Backend = Field(default_factory=lambda: _pick_backend({"backend": "clip"}), description="image-text scorer")
    nouns: Backend = Field(default_factory=lambda: _pick_backend({"backend": "nouns"}), description="head nouns")
    crop_style: CropStyle = Field("mended", description="boxes, fill and antialiasing of the crops")
    clamp: bool = Field(True, description="clamp cosines at 0 before they are multiplied")
    doc_cap: float | None = Field(100.0, gt=0, description="largest DoC, flagged where it cuts; null for none")
    image_batch: int = Field(8, ge=1, description="images that are scored together")
    min_doc: float = Field(1.0, description="keep captions with a larger DoC")
    fallback: Literal["drop", "best"] = Field("drop", description="a mask with nothing kept: drop it or keep its best")
    top_k_per_mask: int | None = Field(None, ge=1, description="most captions kept per mask, by DoC")
    min_words: int = Field(1, ge=0, description="fewest words of a kept caption")
    max_words: int | None = Field(None, ge=1, description="most words of a kept caption")


class ExportSettings(Section):
    """Stage 4."""

    dataset: str = Field("refcoco", pattern=r"^[A-Za-z0-9_+.-]+$", description="name of the data set folder")
    split_by: str = Field("pseudo", pattern=r"^[A-Za-z0-9_+.-]+$", description="REFER's splitBy, part of a file name")
    split: str = Field("train=1", description="share of each split, by image, e.g. train=.9,val=.1")
    max_captions: int | None = Field(None, ge=1, description="most sentences per mask, by DoC")


class Settings(Section):
    """Everything that can be set."""

    source: SourceSettings = SourceSettings()
    numerics: Numerics = Numerics()
    masks: MaskSettings = Field(default_factory=MaskSettings)
    captions: Backend = Field(default_factory=lambda: _pick_backend({"backend": "coca"}))
    filter: FilterSettings = Field(default_factory=FilterSettings)
    export: ExportSettings = ExportSettings()
