"""Stage 2: candidate expressions for every mask (paper §3.2: by distinctive caption sampling)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, LoadedImage, PartInput, PartResult, StageSpec
from pseudoris_cli.method.protocols import Captioner, LeavesOut, PartAtWork, PartCaptioner
from pseudoris_cli.records import Caption, Failure, Mask, MaskedImage
from pseudoris_cli.settings.models import CaptionSettings, Numerics, Settings
from pseudoris_cli.stages.batching import run_batches, run_stream
from pseudoris_cli.stages.served import SCENES, ServedStage, committed, scene_digest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import caption_row, captions_by_image, masks_by_image

NAME = "captions"
REVISION = 2


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
class Spec(ServedStage):
    """The captions stage."""

    settings: CaptionSettings
    name: ClassVar[str] = NAME

    @property
    def backend(self) -> CaptionSettings:
        """The captioner."""
        return self.settings

    def make_worker(self) -> CaptionWorker | StreamWorker:
        """Load the captioner."""
        device = "elsewhere" if self.runs_elsewhere else self.context.device.resolve()
        captioner = backends.load(self.settings, self.context.numerics, device)
        if isinstance(captioner, PartCaptioner):
            return StreamWorker(captioner, self)
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

        if not self.settings.NEEDS_PIXELS:
            part = replace(part, images=_blank_images(part, masks))
        result = run_batches(part, self.settings.image_batch, work, NAME, halving={"row_chunk_halved": self.captioner})
        if not self.settings.NEEDS_PIXELS:
            result.answers |= {ref.key: (0, None) for ref in part.task.images if ref.key not in result.answers}
        if isinstance(self.captioner, LeavesOut) and (left_out := self.captioner.left_out()):
            result.notes["left_out"] = left_out
        return result


class StreamWorker:
    """A captioner that takes images as they come. What an earlier state of the part has of equal images and masks is taken over."""

    def __init__(self, captioner: PartCaptioner, spec: Spec) -> None:
        self.captioner, self.spec = captioner, spec

    def run(self, part: PartInput) -> PartResult:
        """Candidates of every mask of a part."""
        masks = masks_by_image(part.columns["masks"])
        scenes: dict[str, str] = {}

        def work(images: Iterator[LoadedImage], notes: dict[str, Any]) -> Iterator[ImageResult]:
            at_work = PartAtWork(self.spec.journal, self._answered(part.task.part, scenes), notes)
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
        columns, notes = committed(self.spec.place, part)
        rows = captions_by_image(columns) if columns else {}
        before = notes.get(SCENES, {})
        return lambda image: rows.get(image.key, {}) if before.get(image.key) == scenes[image.key] else {}


def _blank_images(part: PartInput, masks: dict[str, tuple[Mask, ...]]) -> Iterator[LoadedImage]:
    """The images that have masks, without pixels: of their size, in no memory."""
    for ref in part.task.images:
        if own := masks.get(ref.key):
            blank = np.broadcast_to(np.uint8(0), (own[0].rle.height, own[0].rle.width, 3))
            yield LoadedImage(ref, blank, None, "")
