"""Objects that noun phrases name, by SAM 3 (Carion et al., 2025) through transformers: masks, scores, the phrase as category."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.matching import intersections
from pseudoris_cli.method.protocols import Proposal, Proposer
from pseudoris_cli.rle import encode_rle, rle_area
from pseudoris_cli.settings.models import BackendSettings, Fraction, Numerics
from pseudoris_cli.settings.resources import expanded
from pseudoris_cli.weights import model_folders
from pseudoris_cli.weights import registry as weights

ROLE = "proposer"


class Settings(BackendSettings):
    """SAM 3 with noun phrases."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint", "concepts_file", "phrase_chunk"}
    )  # `version` has them

    MODEL_FOLDER: ClassVar[str | None] = "checkpoint"

    backend: Literal["sam3_concepts"] = Field("sam3_concepts", description="who says which masks are objects")
    checkpoint: str = Field("sam3", description="registry name, folder, name on the hub, or random:SEED")
    concepts: tuple[str, ...] = Field((), description='noun phrases to look for, e.g. ["person", "red car"]')
    concepts_file: str | None = Field(
        None, description="more of them: a text file, one a line, or the categories of a COCO file, e.g. the source's"
    )
    masks: Literal["choose", "final"] = Field(
        "choose", description="choose among the segmenter's masks, or be the pseudo-masks as they are"
    )
    score_thresh: Fraction = Field(0.5, description="keep instances with a larger score (of query times presence)")
    mask_thresh: Fraction = Field(0.5, description="a pixel belongs to a mask whose probability is larger")
    nms_iou: Fraction = Field(0.7, description="mask IoU above which the worse of two instances goes, over all phrases")
    phrase_chunk: int = Field(4, ge=1, description="phrases in one call of the network; bounds memory")

    @property
    def MASKS_ARE_FINAL(self) -> bool:  # type: ignore[override]
        """See BackendSettings."""
        return self.masks == "final"

    @classmethod
    def tiny(cls) -> Settings:
        """Random scores are about a quarter."""
        return cls(checkpoint="random:0", concepts=("dog", "red square"), score_thresh=0.0, nms_iou=0.9)


def version(settings: Settings) -> str:
    """The digest of every file of the model, and that of all phrases."""
    phrases = hashlib.sha256("\n".join(read_phrases(settings)).encode()).hexdigest()[:16]
    if settings.checkpoint.startswith("random:"):
        weights.find(settings.checkpoint)
        return f"{settings.checkpoint} {phrases}"
    folder = model_folders.locate(settings.checkpoint, "masks.proposals.checkpoint")
    return f"{model_folders.digest(folder)} {phrases}"


def read_phrases(settings: Settings) -> list[str]:
    """All phrases, each once, in order. UsageError (exit 2) if there is none or the file cannot be read."""
    found = [*settings.concepts]
    if settings.concepts_file is not None:
        path = expanded(settings.concepts_file, "masks.proposals.concepts_file")
        try:
            text = path.read_text(encoding="utf-8-sig")
            found += _names(json.loads(text)) if path.suffix == ".json" else text.splitlines()
        except OSError as error:
            raise UsageError(f"masks.proposals.concepts_file={path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"masks.proposals.concepts_file={path} is neither text in UTF-8, one phrase a line, nor JSON with `categories`"
            ) from error
    phrases = list(dict.fromkeys(filter(None, (" ".join(phrase.split()) for phrase in found))))
    if not phrases:
        raise UsageError(
            "masks.proposals.backend=sam3_concepts needs phrases: --set 'masks.proposals.concepts=[person, dog]' or a "
            "concepts_file"
        )
    return phrases


def _names(content: Any) -> list[str]:
    return [str(category["name"]) for category in content["categories"]]


def load(settings: Settings, numerics: Numerics, device: str) -> Concepts:
    """Read the model, encode the phrases, and put it on the device.

    MissingDependency (exit 3) if transformers or the model is not here; UsageError (exit 2) if there is no phrase, or the folder
    holds another model.
    """
    phrases = read_phrases(settings)
    random = settings.checkpoint.startswith("random:")
    folder = None if random else model_folders.locate(settings.checkpoint, "masks.proposals.checkpoint")
    import torch

    from pseudoris_cli.networks import numerics as arithmetic
    from pseudoris_cli.networks import transformers_models
    from pseudoris_cli.networks.sam import concepts
    from pseudoris_cli.weights.tensors import torch_generator

    transformers_models.require("masks.proposals.backend=sam3_concepts")
    arithmetic.set_up(numerics)
    if folder is None:
        model, processor, tokenize = concepts.build_tiny(torch_generator(weights.find(settings.checkpoint).seed or 0))
    else:
        setting = f"masks.proposals.checkpoint={settings.checkpoint}"
        kind = model_folders.model_type(folder, setting)
        if kind not in ("sam3", "sam3_video"):
            raise UsageError(f"{setting} is a model of type {kind!r}; sam3_concepts takes sam3 and sam3_video")
        import transformers

        model = transformers_models.read_model(transformers.Sam3Model, folder, setting)
        whole = transformers_models.read_processor(transformers.Sam3Processor, folder, setting)
        processor = whole.image_processor

        def tokenize(texts: list[str]) -> tuple[Any, Any]:
            found = whole.tokenizer(texts, return_tensors="pt", padding="max_length", max_length=32, truncation=True)
            return found["input_ids"], found["attention_mask"]

    model = model.eval().requires_grad_(False).to(device=torch.device(device), dtype=arithmetic.dtype_of(numerics))
    return Concepts(
        concepts.ConceptDetector(model, processor, tokenize, phrases, settings.phrase_chunk), phrases, settings
    )


class Concepts(Proposer):
    """A `Proposer`: every instance of every phrase."""

    def __init__(self, detector: Any, phrases: Sequence[str], settings: Settings) -> None:
        self.detector, self.phrases, self.settings = detector, phrases, settings

    @property
    def halvings(self) -> int:
        """How often memory ran out and a chunk of phrases was halved."""
        times: int = self.detector.halving.times
        return times

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """See Proposer. Empty masks are left out; of instances that cover each other the best stays."""
        return [self._of(image) for image in images_rgb]

    def _of(self, image: np.ndarray) -> list[Proposal]:
        found = self.detector.detect(image, self.settings.score_thresh, self.settings.mask_thresh)
        proposals = [
            Proposal(encode_rle(one.mask), one.score, (one.phrase + 1, self.phrases[one.phrase]))
            for one in found
            if one.mask.any()
        ]
        proposals.sort(key=lambda proposal: -proposal.score)
        rles = [proposal.rle for proposal in proposals]
        common, areas = intersections(rles, rles), np.array([rle_area(rle) for rle in rles])
        kept: list[int] = []
        for row in range(len(proposals)):
            unions = areas[row] + areas[kept] - common[row, kept]
            if not (common[row, kept] > self.settings.nms_iou * unions).any():
                kept.append(row)
        return [proposals[row] for row in kept]
