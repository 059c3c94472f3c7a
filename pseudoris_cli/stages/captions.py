"""Stage 2: candidate expressions for every mask (paper §3.2: by distinctive caption sampling)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.endpoint.journal import discard, journal_path
from pseudoris_cli.execution.tasks import (
    ContextMaker,
    ImageResult,
    ImageStage,
    LoadedImage,
    PartInput,
    PartResult,
    StageSpec,
)
from pseudoris_cli.method.protocols import Captioner, LeavesOut, PartAtWork, PartCaptioner
from pseudoris_cli.records import Caption, Failure, Mask, MaskedImage
from pseudoris_cli.settings.models import CaptionSettings, Numerics, Settings
from pseudoris_cli.stages.batching import run_batches, run_stream
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import caption_row, captions_by_image, masks_by_image

NAME = "captions"
REVISION = 2
SCENES = "scenes"
"""In the notes of a part whose captioner takes images as they come: image key -> digest of the image and its masks."""


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream; a server's answers do not depend on numerics of this machine."""
    content = {
        "revision": REVISION,
        "settings": backends.results_of(settings.captions),
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {NAME: backends.identify(settings.captions, NAME)},
    }
    if settings.captions.RUNS_ELSEWHERE:
        content.pop("numerics")
    return content


def check(settings: Settings, plan: Plan) -> list[str]:
    """What of the captioner's own data does not fit the planned images. UsageError (exit 2) where the work would be in vain."""
    return backends.check_images(settings.captions, (ref.key for ref in plan.all_images()))


def make_spec(settings: Settings, make_context: ContextMaker) -> StageSpec:
    """The stage, ready to load its captioner."""
    if not settings.captions.NEEDS_PIXELS:
        return GivenSpec(settings.captions, settings.numerics)
    return Spec(make_context(), settings.captions)


@dataclass(frozen=True)
class Spec(ImageStage):
    """The captions stage. `place`: the folder of its parts and the name of its writer."""

    settings: CaptionSettings
    place: tuple[Path, str] | None = None
    name: ClassVar[str] = NAME

    @property
    def runs_elsewhere(self) -> bool:
        """Whether the captioner is a server's."""
        return self.settings.RUNS_ELSEWHERE

    def placed(self, folder: Path, writer: str) -> Spec:
        """The journal of answers lies beside the parts."""
        return replace(self, place=(folder, writer))

    def clean_up(self) -> None:
        """The part is committed: its answers need no journal."""
        if self.place and self.runs_elsewhere:
            discard(*self.place)

    def make_worker(self) -> CaptionWorker | StreamWorker:
        """Load the captioner."""
        device = "elsewhere" if self.runs_elsewhere else self.context.device.resolve()
        captioner = backends.load(self.settings, self.context.numerics, device)
        if isinstance(captioner, PartCaptioner):
            return StreamWorker(captioner, self.place)
        return CaptionWorker(self.settings, captioner)


@dataclass(frozen=True)
class GivenSpec(StageSpec):
    """The captions stage with a captioner that looks at no image."""

    settings: CaptionSettings
    numerics: Numerics
    name: ClassVar[str] = NAME

    def make_worker(self) -> CaptionWorker:
        """Load the captioner."""
        return CaptionWorker(self.settings, backends.load(self.settings, self.numerics, "cpu"))


class CaptionWorker:
    """The captioner on the masks of the stage before."""

    def __init__(self, settings: CaptionSettings, captioner: Captioner) -> None:
        self.settings, self.captioner = settings, captioner

    def run(self, part: PartInput) -> PartResult:
        """Candidates of every mask of a part."""
        masks = masks_by_image(part.columns["masks"])

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            images = [
                MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key], image.ref.drawn_as) for image in batch
            ]
            captions = self.captioner.caption(images)
            return [
                ImageResult([caption_row(image.ref, caption) for caption in found])
                for image, found in zip(batch, captions, strict=True)
            ]

        halved = self.captioner.halvings
        if not self.settings.NEEDS_PIXELS:
            part = replace(part, images=_blank_images(part, masks))
        result = run_batches(part, self.settings.image_batch, work, NAME)
        if not self.settings.NEEDS_PIXELS:
            result.answers |= {ref.key: (0, None) for ref in part.task.images if ref.key not in result.answers}
        if isinstance(self.captioner, LeavesOut) and (left_out := self.captioner.left_out()):
            result.notes["left_out"] = left_out
        if (times := self.captioner.halvings - halved) > 0:
            result.notes["row_chunk_halved"] = times
        return result


class StreamWorker:
    """A captioner that takes images as they come. What an earlier state of the part has of equal images and masks is taken over."""

    def __init__(self, captioner: PartCaptioner, place: tuple[Path, str] | None) -> None:
        self.captioner, self.place = captioner, place

    def run(self, part: PartInput) -> PartResult:
        """Candidates of every mask of a part."""
        masks = masks_by_image(part.columns["masks"])
        scenes: dict[str, str] = {}

        def work(images: Iterator[LoadedImage], notes: dict[str, Any]) -> Iterator[ImageResult]:
            journal = journal_path(*self.place) if self.place else None
            at_work = PartAtWork(journal, self._answered(part.task.part, scenes), notes)
            given: list[LoadedImage] = []

            def masked() -> Iterator[MaskedImage]:
                for image in images:
                    given.append(image)
                    found = MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key], image.ref.drawn_as)
                    scenes[image.ref.key] = scene_digest(image.sha256, found)
                    yield found

            for answer in self.captioner.caption_part(masked(), at_work):
                image = given.pop(0)
                if isinstance(answer, Failure):
                    yield ImageResult(failure=answer)
                else:
                    yield ImageResult([caption_row(image.ref, caption) for caption in answer])

        result = run_stream(part, work, NAME)
        result.notes[SCENES] = scenes
        return result

    def _answered(self, part: int, scenes: dict[str, str]) -> Callable[[MaskedImage], dict[int, list[Caption]]]:
        """A look into the committed part of this number, if there is one: what it has of an image, by mask."""
        if self.place is None:
            return lambda image: {}
        manifest = Manifest(self.place[0])
        entry = manifest.entries.get(part)
        if entry is None or not manifest.is_intact(entry):
            return lambda image: {}
        before = entry.notes.get(SCENES, {})
        rows = captions_by_image(read_part(manifest.path_of(entry)))
        return lambda image: rows.get(image.key, {}) if before.get(image.key) == scenes[image.key] else {}


def _blank_images(part: PartInput, masks: dict[str, tuple[Mask, ...]]) -> Iterator[LoadedImage]:
    """The images that have masks, without pixels: of their size, in no memory."""
    for ref in part.task.images:
        if own := masks.get(ref.key):
            blank = np.broadcast_to(np.uint8(0), (own[0].rle.height, own[0].rle.width, 3))
            yield LoadedImage(ref, blank, None, "")


def scene_digest(image_sha256: str, image: MaskedImage) -> str:
    """What tells whether an image and its masks are those of before."""
    text = "\n".join([image_sha256, *(f"{mask.mask_id} {mask.rle.counts}" for mask in image.masks)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
