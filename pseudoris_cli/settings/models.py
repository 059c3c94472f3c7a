"""Settings: one frozen pydantic model per stage, defaults written once (they are the `paper` profile).

Nothing here imports torch. The settings of a backend are in its own file and come with it, whoever brings it (`plugins.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings import plugins

Channels = Literal["rgb", "bgr"]
CropStyle = Literal["mended", "released"]
PromptStyle = Literal["mended", "released"]
SegmentationStyle = Literal["polygon", "rle"]
SentenceChoice = Literal["best", "all"]
Fraction = Annotated[float, Field(ge=0, le=1)]
NO_BACKEND = "none"
"""The backend of a role that is not filled."""


class Section(BaseModel):
    """A group of settings; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_SAME = object()


def added_later(default: Any, before: Any = _SAME, **how: Any) -> Any:
    """A setting that older versions did not have: it enters the version only where it changes what they did.

    `before` is the value that gives their results, where that is not the default.
    """
    return Field(default, json_schema_extra={"added_later": default if before is _SAME else before}, **how)


def versioned(section: Section, **how: Any) -> dict[str, Any]:
    """What of a section decides results, as JSON; `how` goes to pydantic's model_dump."""
    values = section.model_dump(mode="json", **how)
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        if isinstance(extra, dict) and "added_later" in extra and getattr(section, name) == extra["added_later"]:
            values.pop(name, None)
    return values


class BackendSettings(Section):
    """Settings of one backend; `backend` is its name or dotted path."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset()
    """Names of settings that change no result and so stay out of the version."""

    MASKS_ARE_FINAL: ClassVar[bool] = False
    """Of a proposer: its masks are the pseudo-masks as they are, no segmenter is asked."""

    RUNS_ELSEWHERE: ClassVar[bool] = False
    """Whether a server does the work: no device is chosen here, and the version holds no numerics."""

    MODEL_FOLDER: ClassVar[str | None] = None
    """The setting that names a model of transformers: a folder, a registered name, or one of the hub."""

    backend: str

    @classmethod
    def tiny(cls) -> BackendSettings:
        """A configuration with random weights that builds and runs in about a second on a CPU."""
        raise NotImplementedError


class CaptionSettings(BackendSettings):
    """Stage 2: what every captioner has; its own Settings derive from this."""

    NEEDS_PIXELS: ClassVar[bool] = True
    """Whether the captioner looks at images; for one that does not none is read."""

    seed: int = Field(0, ge=0, description="seed of whatever is drawn at random")
    image_batch: int = Field(4, ge=1, description="images that are captioned together")


class JudgeSettings(BackendSettings):
    """Which candidates a listener is asked, and how; the Settings of every listener derive from this."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"image_batch"})

    ask_per_mask: int = Field(16, ge=1, description="most candidates of a mask that are asked, best first")
    min_doc: float | None = Field(
        None, description="candidates at or below this DoC are not asked; null for filter.min_doc"
    )
    permutations: int = Field(2, ge=1, description="numberings of the objects under which each candidate is asked")
    max_marks: int = Field(20, ge=2, description="most objects that are shown: the mask and the rivals most like it")
    multi: bool = Field(False, description="ask for every object whether it fits, for expressions that mean several")
    no_target_per_image: int = Field(0, ge=0, description="expressions of other images that are asked about an image")
    seed: int = Field(0, ge=0, description="seed of the numberings and of the other images")
    image_batch: int = Field(8, ge=1, description="images that are judged together")


def select_backend(value: Any, role: str) -> Any:
    """Turn a mapping into the Settings of the backend that it names; ValueError if there is none, or it has another role."""
    if not isinstance(value, dict):
        return value
    name = str(value.get("backend", ""))
    try:
        settings = backend_settings(name, role)
    except UsageError as error:
        raise ValueError(str(error)) from error
    return settings.model_validate(value)


def backend_settings(name: str, role: str) -> type[BackendSettings]:
    """The Settings of the backend of a name. UsageError (exit 2) if there is none, or it has another role."""
    module = plugins.load(plugins.BACKENDS, name, plugins.backends_of(role))
    if problem := role_problem(module, name, role):
        raise UsageError(problem)
    return module.Settings


def role_problem(module: ModuleType, name: str, role: str) -> str | None:
    """Why a module cannot be the backend of a role; None if it can."""
    own = plugins.roles_of(module)
    choices = ", ".join(plugins.backends_of(role))
    if not own or not hasattr(module, "Settings") or not hasattr(module, "load"):
        return f"{name!r} is no backend: it defines no ROLE, Settings or load; a {role} is one of: {choices}"
    if role not in own:
        return f"{name!r} is a {' and a '.join(own)}, not a {role}; choose from {choices}"
    if role == "captioner" and not issubclass(module.Settings, CaptionSettings):
        return f"{name!r} is no captioner: its Settings must derive from pseudoris_cli.settings.models.CaptionSettings"
    if role == "listener" and name != NO_BACKEND and not issubclass(module.Settings, JudgeSettings):
        return f"{name!r} is no listener: its Settings must derive from pseudoris_cli.settings.models.JudgeSettings"
    return None


def _default(role: str, name: str) -> Callable[[], Any]:
    return lambda: select_backend({"backend": name}, role)


SegmenterSection = Annotated[
    SerializeAsAny[BackendSettings], BeforeValidator(partial(select_backend, role="segmenter"))
]
ProposerSection = Annotated[SerializeAsAny[BackendSettings], BeforeValidator(partial(select_backend, role="proposer"))]
CaptionerSection = Annotated[
    SerializeAsAny[CaptionSettings], BeforeValidator(partial(select_backend, role="captioner"))
]
ScorerSection = Annotated[SerializeAsAny[BackendSettings], BeforeValidator(partial(select_backend, role="scorer"))]
ListenerSection = Annotated[SerializeAsAny[BackendSettings], BeforeValidator(partial(select_backend, role="listener"))]
NounsSection = Annotated[SerializeAsAny[BackendSettings], BeforeValidator(partial(select_backend, role="nouns"))]


def backend_sections(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """(path, role) of every section of a model that takes the settings of a backend."""
    for name, info in model.model_fields.items():
        validators = (mark.func for mark in info.metadata if isinstance(mark, BeforeValidator))
        roles = [check.keywords["role"] for check in validators if isinstance(check, partial)]
        if roles:
            yield (*path, name), roles[0]
        elif isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from backend_sections(info.annotation, (*path, name))


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
        0.95, description="fraction of a mask inside another above which the worse of the two goes"
    )
    min_area: int = Field(100, ge=0, description="smallest mask, in pixels")
    max_area: Fraction = Field(0.6, description="largest mask, as a fraction of the image")


class MaskSettings(Section):
    """Stage 1 (paper §3.1)."""

    sam: SegmenterSection = Field(default_factory=_default("segmenter", "sam"), description="automatic masks")
    proposals: ProposerSection = Field(
        default_factory=_default("proposer", "cascade_rcnn"), description="which masks are objects"
    )
    match: Literal["iou", "overlap"] = Field("iou", description="how the SAM mask of a detection is chosen")
    match_min_iou: Fraction = Field(0.0, description="a detection whose best mask is below this is dropped")
    deduplicate: bool = Field(True, description="two detections on one SAM mask make one pseudo-mask")
    drop_full_frame: bool = added_later(False, description="drop masks that cover every pixel, as the release does")
    rules: MaskRules = MaskRules()
    max_per_image: int | None = Field(None, ge=1, description="most masks an image may have, best first")
    max_pixels: int = Field(40_000_000, ge=1, description="larger images are recorded as failed")
    image_batch: int = Field(
        4, ge=1, description="images in one call of the networks; on a GPU SAM encodes a quarter of them at a time"
    )


class FilterSettings(Section):
    """Stage 3: distinctiveness of caption (paper §3.3)."""

    SCORES: ClassVar[tuple[str, ...]] = (
        "scorer",
        "nouns",
        "prompt_style",
        "crop_style",
        "clamp",
        "doc_cap",
        "image_batch",
    )
    """The settings that decide scores; the others only select and so recompute no score."""

    scorer: ScorerSection = Field(default_factory=_default("scorer", "clip"), description="image-text scorer")
    nouns: NounsSection = Field(default_factory=_default("nouns", "nouns"), description="head nouns")
    prompt_style: PromptStyle = added_later(
        "mended", before="released", description='article and case of the noun prompt; `released`: always "a"'
    )
    crop_style: CropStyle = Field("mended", description="boxes, fill and antialiasing of the crops")
    clamp: bool = Field(True, description="clamp cosines at 0 before they are multiplied")
    doc_cap: float | None = Field(100.0, gt=0, description="largest DoC, flagged where it cuts; null for none")
    image_batch: int = Field(8, ge=1, description="images that are scored together")
    judge: ListenerSection = Field(
        default_factory=_default("listener", NO_BACKEND), description="who is asked which object an expression means"
    )
    min_listener: Fraction = added_later(
        0.5, description="with a judge: keep captions for whose mask the listener's probability is larger"
    )
    min_doc: float = Field(1.0, description="keep captions with a larger DoC")
    one_mask_half: Literal["texts", "candidates"] = added_later(
        "texts",
        description="of an image's only mask the better half stays: of its distinct texts, or of its candidates, where repeats "
        "count (release)",
    )
    fallback: Literal["drop", "best"] = Field("drop", description="a mask with nothing kept: drop it or keep its best")
    top_k_per_mask: int | None = Field(None, ge=1, description="most captions kept per mask, by DoC")
    min_words: int = Field(1, ge=0, description="fewest words of a kept caption")
    max_words: int | None = Field(None, ge=1, description="most words of a kept caption")
    decisions: str | None = added_later(
        None,
        description="file of keep and drop decisions made by hand (`pseudoris report` saves one); they win over the rules",
    )


class ExportSettings(Section):
    """Stage 4."""

    dataset: str = Field("refcoco", pattern=r"^[A-Za-z0-9_+.-]+$", description="name of the data set folder")
    split_by: str = Field("pseudo", pattern=r"^[A-Za-z0-9_+.-]+$", description="REFER's splitBy, part of a file name")
    split: str = Field(
        "train=1", description="fraction of each split, by image, e.g. train=.9,val=.1; or lists: val=val.txt,train=*"
    )
    max_captions: int | None = Field(None, ge=1, description="most sentences per mask, by DoC")
    segmentation: SegmentationStyle = Field("polygon", description="masks of refcoco: polygon (every reader) or rle")
    sentences: SentenceChoice = Field("best", description="sa2va: the best sentence of an object, or all, repeating it")
    shard_mb: int = Field(512, ge=1, description="webdataset: size of a shard in megabytes")


class Settings(Section):
    """Everything that can be set."""

    source: SourceSettings = SourceSettings()
    numerics: Numerics = Numerics()
    masks: MaskSettings = Field(default_factory=MaskSettings)
    captions: CaptionerSection = Field(default_factory=_default("captioner", "coca"))
    filter: FilterSettings = Field(default_factory=FilterSettings)
    export: ExportSettings = ExportSettings()
