"""Stage 2: candidate expressions for every mask by distinctive caption sampling (paper §3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, ImageStage, LoadedImage, PartInput, PartResult
from pseudoris_cli.method.protocols import Captioner
from pseudoris_cli.records import MaskedImage
from pseudoris_cli.settings.models import CaptionSettings, Settings
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.storage.rows import caption_row, masks_by_image

NAME = "captions"
REVISION = 2


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    return {
        "revision": REVISION,
        "settings": backends.results_of(settings.captions),
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {NAME: backends.identify(settings.captions, NAME)},
    }


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage, ready to load its captioner."""
    return Spec(make_context(), settings.captions)


@dataclass(frozen=True)
class Spec(ImageStage):
    """The captions stage."""

    settings: CaptionSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> CaptionWorker:
        """Load the captioner."""
        captioner = backends.load(self.settings, self.context.numerics, self.context.device.resolve())
        return CaptionWorker(self.settings, captioner)


class CaptionWorker:
    """The captioner on the masks of the stage before."""

    def __init__(self, settings: CaptionSettings, captioner: Captioner) -> None:
        self.settings, self.captioner = settings, captioner

    def run(self, part: PartInput) -> PartResult:
        """Candidates of every mask of a part."""
        masks = masks_by_image(part.columns["masks"])

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            images = [MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key]) for image in batch]
            captions = self.captioner.caption(images)
            return [
                ImageResult([caption_row(image.ref, caption) for caption in found])
                for image, found in zip(batch, captions, strict=True)
            ]

        halved = self.captioner.halvings
        result = run_batches(part, self.settings.image_batch, work, NAME)
        if (times := self.captioner.halvings - halved) > 0:
            result.notes["row_chunk_halved"] = times
        return result
