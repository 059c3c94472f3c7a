"""Stage 3a: correctness, uniqueness and distinctiveness of every candidate (paper §3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, ImageStage, LoadedImage, PartInput, PartResult
from pseudoris_cli.method.protocols import NounFinder, Scorer
from pseudoris_cli.records import MaskedImage
from pseudoris_cli.settings.models import FilterSettings, Settings, versioned
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.storage.rows import candidates_by_image, masks_by_image

NAME = "scores"
REVISION = 1


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    scoring = settings.filter
    plain = versioned(scoring, include=set(scoring.SCORES) - {"scorer", "nouns"})
    return {
        "revision": REVISION,
        "settings": plain | {n: backends.results_of(getattr(scoring, n)) for n in ("scorer", "nouns")},
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {n: backends.identify(getattr(scoring, n), f"filter.{n}") for n in ("scorer", "nouns")},
    }


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage, ready to load its networks."""
    return Spec(make_context(), settings.filter)


@dataclass(frozen=True)
class Spec(ImageStage):
    """The scores stage."""

    settings: FilterSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> ScoreWorker:
        """Load the scorer and the parser."""
        device, numerics = self.context.device.resolve(), self.context.numerics
        nouns = backends.load(self.settings.nouns, numerics, device)
        return ScoreWorker(self.settings, backends.load(self.settings.scorer, numerics, device), nouns)


class ScoreWorker:
    """The scorer on the candidates of the stage before."""

    def __init__(self, settings: FilterSettings, scorer: Scorer, nouns: NounFinder) -> None:
        self.settings, self.scorer, self.nouns = settings, scorer, nouns

    def run(self, part: PartInput) -> PartResult:
        """Scores of every candidate of a part."""
        from pseudoris_cli.method import scoring

        masks = masks_by_image(part.columns["masks"])
        candidates = candidates_by_image(part.columns["captions"])

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            images = [MaskedImage(image.ref.key, image.image_rgb, masks[image.ref.key]) for image in batch]
            texts = [candidates[image.ref.key] for image in batch]
            scored = scoring.score_images(images, texts, self.scorer, self.nouns, self.settings)
            return [
                ImageResult([{"image_key": image.ref.key, **row} for row in rows])
                for image, rows in zip(batch, scored, strict=True)
            ]

        return run_batches(part, self.settings.image_batch, work, NAME, halving={"chunk_halved": self.scorer})
