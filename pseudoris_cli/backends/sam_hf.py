"""Automatic masks by transformers' Segment Anything family: SAM 2 and 2.1, SAM 3's tracker, SAM-HQ and EdgeTAM."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from pseudoris_cli.backends import automatic_masks
from pseudoris_cli.backends.automatic_masks import AutomaticMaskSection, AutomaticSegmenter
from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.weights import model_folders
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "segmenter"

CLASSES = {
    "sam2": "Sam2Model",
    "sam2_video": "Sam2Model",
    "sam3_tracker": "Sam3TrackerModel",
    "sam3_video": "Sam3TrackerModel",
    "sam_hq": "SamHQModel",
    "edgetam": "EdgeTamModel",
    "edgetam_video": "EdgeTamModel",
}
"""The class for a `model_type` of config.json."""


class Settings(AutomaticMaskSection):
    """A model of transformers, from a local folder or the Hugging Face cache; thresholds and grid as for `sam`."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"checkpoint"})  # `version` holds its digest
    MODEL_FOLDER: ClassVar[str | None] = "checkpoint"

    backend: Literal["sam_hf"] = Field("sam_hf", description="who makes every mask")
    model: Literal["tiny_sam2", "tiny_sam3_tracker", "tiny_sam_hq", "tiny_edgetam", "sam2_hiera_tiny"] = Field(
        "tiny_sam2", description="network of checkpoint=random:SEED; of a checkpoint, its config.json says it"
    )
    checkpoint: str = Field(
        "sam2.1_hiera_large", description="registry name, folder, name on the Hugging Face hub, or random:SEED"
    )
    decoder: Literal["auto", "official", "absorb", "lowrank"] = Field(
        "auto",
        description="form of the mask decoder; official: transformers' module; auto: lowrank on a CPU, absorb on a GPU",
    )
    point_grid: Literal["image", "transformers"] = Field(
        "image", description="points over the whole image, or where transformers' pipeline puts them (not all of it)"
    )

    @classmethod
    def tiny(cls) -> Settings:
        """Thresholds that let random masks through, so that every photograph has some."""
        return cls(
            checkpoint="random:0",
            points_per_side=4,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.3,
            box_nms_thresh=0.95,
        )


def version(settings: Settings) -> str:
    """The digest of every file of the model, or the seed and name of random weights."""
    if settings.checkpoint.startswith("random:"):
        weights.find(settings.checkpoint)
        return f"{settings.checkpoint} {settings.model}"
    return model_folders.digest(model_folders.locate(settings.checkpoint, "masks.sam.checkpoint"))


def load(settings: Settings, numerics: Numerics, device: str) -> AutomaticSegmenter:
    """Read the model and put it on the device.

    Raises MissingDependency (exit 3) if transformers or the model is not here, UsageError (exit 2) if it is of another kind, if
    tensors are missing, or if the settings contradict each other.
    """
    automatic_masks.check_grid(settings)
    seed = weights.find(settings.checkpoint).seed if settings.checkpoint.startswith("random:") else None
    folder = None if seed is not None else model_folders.locate(settings.checkpoint, "masks.sam.checkpoint")
    import torch

    from pseudoris_cli.networks import numerics as arithmetic
    from pseudoris_cli.networks import transformers_models
    from pseudoris_cli.networks.sam.automatic import AutomaticMasks
    from pseudoris_cli.networks.sam.transformers_network import TransformersSam

    transformers_models.require("masks.sam.backend=sam_hf")
    arithmetic.set_up(numerics)
    model, processor = _read(folder) if folder else _random(settings, seed or 0)
    model = model.eval().requires_grad_(False).to(torch.device(device))
    _set_precision(model, arithmetic.dtype_of(numerics))
    on_gpu = torch.device(device).type != "cpu"
    form, chunk = _resolve(settings, model, on_gpu)
    network = TransformersSam(model, processor, _decoder(form, model, chunk), settings.point_grid == "transformers")
    if numerics.compile:
        network.compile()
    generator = AutomaticMasks(network, automatic_masks.generation(settings), gather=on_gpu)
    return AutomaticSegmenter(generator, settings.channels, {"decoder": form, "prompt_chunk": chunk})


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, for 640 x 480. MissingDependency (exit 3) where the model is not here."""
    random = settings.checkpoint.startswith("random:")
    folder = None if random else model_folders.locate(settings.checkpoint, "masks.sam.checkpoint")
    from pseudoris_cli.networks import transformers_models
    from pseudoris_cli.networks.sam.transformers_memory import memory as of_network
    from pseudoris_cli.networks.sam.transformers_network import TransformersSam

    transformers_models.require("masks.sam.backend=sam_hf")
    model, processor = _blank(folder, settings.model, work.numerics)
    form, chunk = _resolve(settings, model, work.on_gpu)
    network = TransformersSam(model, processor, _decoder(form, model, chunk), settings.point_grid == "transformers")
    return of_network(network, work, (480, 640))


@lru_cache(maxsize=4)
def _blank(folder: Path | None, name: str, numerics: Numerics) -> tuple[Any, Any]:
    """Model without memory and image processor, of a folder or of random weights."""
    import torch
    import transformers

    from pseudoris_cli.networks import numerics as arithmetic
    from pseudoris_cli.networks import transformers_models
    from pseudoris_cli.networks.sam.transformers_sizes import empty

    if folder is None:
        with torch.device("meta"):
            model, processor = empty(name)
    else:
        setting = f"masks.sam.checkpoint={folder}"
        kind = getattr(transformers, _class_of(folder, setting))
        model = transformers_models.blank_model(kind, folder, setting)
        processor = transformers_models.read_processor(transformers.AutoImageProcessor, folder, setting)
    _set_precision(model.requires_grad_(False), arithmetic.dtype_of(numerics))
    return model, processor


def _class_of(folder: Path, setting: str) -> str:
    """The class of the model in a folder. UsageError (exit 2) if it is none of these."""
    kind = model_folders.model_type(folder, setting)
    if kind not in CLASSES:
        raise UsageError(f"{setting} is a model of type {kind!r}; sam_hf takes {', '.join(CLASSES)}")
    return CLASSES[kind]


def _read(folder: Path) -> tuple[Any, Any]:
    """Model and image processor of a folder."""
    import transformers

    from pseudoris_cli.networks import transformers_models

    setting = f"masks.sam.checkpoint={folder}"
    model = transformers_models.read_model(getattr(transformers, _class_of(folder, setting)), folder, setting)
    return model, transformers_models.read_processor(transformers.AutoImageProcessor, folder, setting)


def _random(settings: Settings, seed: int) -> tuple[Any, Any]:
    from pseudoris_cli.networks.sam.transformers_sizes import build
    from pseudoris_cli.weights.tensors import torch_generator

    return build(settings.model, torch_generator(seed))


def _set_precision(model: Any, dtype: torch.dtype) -> None:
    """Encoder and decoder in the precision of the run; prompts are sines of large angles and stay in float32."""
    model.vision_encoder.to(dtype)
    model.mask_decoder.to(dtype)
    if hasattr(model, "no_memory_embedding"):
        model.no_memory_embedding.data = model.no_memory_embedding.data.to(dtype)


def _resolve(settings: Settings, model: Any, on_gpu: bool) -> tuple[str, int]:
    """The form of the decoder and the points of one call, where the settings leave them open.

    SAM-HQ has no rewriting: `hq` is its decoder with transformers' modules, put together as its authors do.
    """
    from pseudoris_cli.networks.sam.transformers_decoder import is_rewritable

    form: str = settings.decoder
    if hasattr(model.mask_decoder, "hq_token"):
        if form not in ("auto", "official"):
            raise UsageError(f"masks.sam.decoder={form}: SAM-HQ's decoder has no such form; set auto or official")
        form = "hq" if form == "auto" else form
    elif not is_rewritable(model):
        if form not in ("auto", "official"):
            raise UsageError(f"masks.sam.decoder={form} is derived for two layers and three masks; set official")
        form = "official"
    elif form == "auto":
        form = "absorb" if on_gpu else "lowrank"
    return form, settings.prompt_chunk or (64 if on_gpu or form == "official" else 4)


def _decoder(form: str, model: Any, chunk: int) -> Any:
    from pseudoris_cli.networks.sam.decoder_absorbed import AbsorbedDecoder
    from pseudoris_cli.networks.sam.decoder_lowrank import LowRankDecoder
    from pseudoris_cli.networks.sam.transformers_decoder import ModuleDecoder, RewrittenDecoder
    from pseudoris_cli.networks.sam.transformers_hq import HqDecoder

    if form == "official":
        return ModuleDecoder(model, chunk)
    if form == "hq":
        return HqDecoder(model, chunk)
    return RewrittenDecoder(model, AbsorbedDecoder if form == "absorb" else LowRankDecoder, chunk)
