"""Stage 1: pseudo-masks. SAM's automatic masks, of which a detector chooses those that are objects (paper §3.1)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

from pseudoris_cli import watching
from pseudoris_cli.backends import registry as backends
from pseudoris_cli.execution.tasks import ContextMaker, ImageResult, ImageStage, LoadedImage, PartInput, PartResult
from pseudoris_cli.method.matching import choose
from pseudoris_cli.method.protocols import LeavesOut, Proposer, Segmenter
from pseudoris_cli.settings.models import MaskSettings, Settings, versioned
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.storage.rows import mask_row

NAME = "masks"
REVISION = 1


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage."""
    masks = settings.masks
    plain = versioned(masks, exclude={"sam", "proposals"})
    names = ("proposals",) if masks.proposals.MASKS_ARE_FINAL else ("sam", "proposals")
    return {
        "revision": REVISION,
        "settings": plain | {n: backends.results_of(getattr(masks, n)) for n in names},
        "numerics": settings.numerics.model_dump(mode="json"),
        "checkpoints": {n: backends.identify(getattr(masks, n), f"{NAME}.{n}") for n in names},
    }


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage, ready to load its networks."""
    return Spec(make_context(), settings.masks)


@dataclass(frozen=True)
class Spec(ImageStage):
    """The masks stage."""

    settings: MaskSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> MaskWorker:
        """Load SAM and the detector."""
        device, numerics = self.context.device.resolve(), self.context.numerics
        proposals = self.settings.proposals
        proposer = backends.load(proposals, numerics, device)
        segmenter = None if proposals.MASKS_ARE_FINAL else backends.load(self.settings.sam, numerics, device)
        return MaskWorker(self.settings, segmenter, proposer)


class MaskWorker:
    """SAM, the detector and the rules that join them."""

    def __init__(self, settings: MaskSettings, segmenter: Segmenter | None, proposer: Proposer | None) -> None:
        self.settings, self.segmenter, self.proposer = settings, segmenter, proposer

    def run(self, part: PartInput) -> PartResult:
        """Pseudo-masks of every image of a part; an image without any is empty."""
        dropped: Counter[str] = Counter()
        halving = {"prompt_chunk_halved": self.segmenter, "phrase_chunk_halved": self.proposer}
        result = run_batches(
            part, self.settings.image_batch, lambda batch: self._masks(batch, dropped), NAME, halving=halving
        )
        if self.segmenter and self.segmenter.resolved:
            result.notes["resolved"] = dict(self.segmenter.resolved)
        if dropped:
            result.notes["dropped"] = dict(dropped)
        if isinstance(self.proposer, LeavesOut) and (left_out := self.proposer.left_out()):
            result.notes["left_out"] = left_out
        return result

    def _masks(self, batch: list[LoadedImage], dropped: Counter[str]) -> list[ImageResult]:
        images = [image.image_rgb for image in batch]
        keys = [image.ref.key for image in batch]
        with watching.span(0, 0.9):  # SAM has many prompts for each image
            segments = self.segmenter.segment(images) if self.segmenter else None
        proposals = self.proposer.propose(images, keys) if self.proposer else None
        results, counted = [], Counter[str]()
        for number, image in enumerate(batch):
            chosen = choose(
                segments[number] if segments is not None else None,
                proposals[number] if proposals is not None else None,
                self.settings,
            )
            counted.update(chosen.dropped)
            results.append(ImageResult([mask_row(image.ref, mask) for mask in chosen.masks]))
        dropped.update(counted)  # only now: a batch that fails midway is run again
        return results
