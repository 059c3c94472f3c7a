"""What a backend must offer. A stage knows these protocols and nothing else about a network.

A backend is a module: a file of `pseudoris_cli/backends`, or of an installed package (docs/extending.md). It defines

* `ROLE`, one of the keys of `PROTOCOLS` or a tuple of them,
* `Settings`, a frozen pydantic model derived from `pseudoris_cli.settings.models.BackendSettings` (captioners: from
  `CaptionSettings`, listeners: from `JudgeSettings`),
* `Settings.tiny()`, a configuration with random weights that builds and runs in about a second on a CPU,
* `load(settings, numerics, device)`, which imports torch, reads the checkpoint and returns what meets the protocol of its role,
* optionally `version(settings)`, what identifies it in a version where that is not a `checkpoint`.

Classes that derive from a protocol inherit its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np

from pseudoris_cli.records import Caption, Category, Failure, Mask, MaskedImage, Rle

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Segment:
    """A class-agnostic mask from an automatic mask generator. `bbox` is xywh with inclusive maximum."""

    rle: Rle
    area: int
    bbox: tuple[float, float, float, float]
    predicted_iou: float
    stability_score: float


@dataclass(frozen=True, slots=True)
class Proposal:
    """An object found by a detector: its mask in the image's frame and its score; `category` where it has a name."""

    rle: Rle
    score: float
    category: Category | None = None


@runtime_checkable
class Segmenter(Protocol):
    """Every mask of an image (segment_anything's SamAutomaticMaskGenerator is the model)."""

    resolved: Mapping[str, Any] = {}
    """Settings left to the device, as they were resolved; the stage notes them with the part."""

    def segment(self, images_rgb: Sequence[np.ndarray]) -> list[list[Segment]]:
        """Segment each [H, W, 3] uint8 RGB image; sizes may differ. Order within an image is the generator's own."""
        ...


@runtime_checkable
class Proposer(Protocol):
    """The objects of an image (CutLER is the model)."""

    def propose(self, images_rgb: Sequence[np.ndarray], keys: Sequence[str]) -> list[list[Proposal]]:
        """Detect in each [H, W, 3] uint8 RGB image, in descending order of score. `keys` name the images."""
        ...


@runtime_checkable
class Captioner(Protocol):
    """Candidate expressions for every mask of an image."""

    halvings: int = 0
    """How often memory ran out so far and a batch was halved; the stage notes it with the part."""

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """Captions of each image, mask by mask, candidate ids 0.. within a mask.

        No rule may depend on the other images of the batch; numbers may in their last digits (equal batches give equal rows on
        equal machines; in another batch tokens are equal but for near-ties and log-probabilities agree to 1e-4).
        """
        ...


def nothing_answered(image: MaskedImage) -> dict[int, list[Caption]]:
    """For work that begins anew."""
    return {}


@dataclass(frozen=True)
class PartAtWork:
    """What such a captioner is told of the part that it works on."""

    journal: Path | None = None
    """Where answers may be kept until the part is committed; None for nowhere."""
    answered: Callable[[MaskedImage], dict[int, list[Caption]]] = nothing_answered
    """The captions, by mask, that an earlier state of the part has of just this image with just these masks."""
    notes: dict[str, Any] = field(default_factory=dict)
    """For the manifest."""


@runtime_checkable
class PartCaptioner(Captioner, Protocol):
    """A captioner that takes images as they come, with masks of several in work at once.

    One that asks a server says so by `RUNS_ELSEWHERE` of its settings; a signal ends its work at any moment.
    """

    def caption_part(self, images: Iterable[MaskedImage], part: PartAtWork) -> Iterator[list[Caption] | Failure]:
        """Captions of each image (as in `caption`) or why it has none, in the order of the images.

        What `part.answered` gives is taken over, not asked again.
        """
        ...


@runtime_checkable
class LeavesOut(Protocol):
    """Optional for a captioner or a proposer: one that cannot use all that it was given, and counts it."""

    def left_out(self) -> dict[str, int]:
        """What was left out since this was last asked, by reason; the stage notes it with the part."""
        ...


@runtime_checkable
class Halves(Protocol):
    """Optional for any backend: one that works in chunks and halves them where memory runs out. A captioner has it."""

    @property
    def halvings(self) -> int:
        """How often it did so far; the stage notes it with the part."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """A joint image-text embedding. `size`, `mean`, `std` and `interpolation` say how its crops are made: side in pixels, RGB in
    0..1, and how they are resized."""

    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: str

    def encode_images(self, crops: torch.Tensor) -> torch.Tensor:
        """Normalised crops [N, 3, size, size] to unit vectors [N, D]."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts to unit vectors [N, D]; texts beyond the context length are cut."""
        ...


@runtime_checkable
class NounFinder(Protocol):
    """The head noun of a caption."""

    def nouns(self, captions: Sequence[str]) -> list[str]:
        """The noun for CLIP's prompt, a word or few, for each caption; '' where there is nothing to score, as of an empty one."""
        ...


@dataclass(frozen=True, slots=True)
class Lineup:
    """An image with its objects, in the order in which they are numbered, and expressions about any of them."""

    key: str
    image_rgb: np.ndarray
    masks: tuple[Mask, ...]
    expressions: tuple[str, ...]


@runtime_checkable
class Listener(Protocol):
    """Who is shown all objects of an image and picks the one that an expression means."""

    numbered: bool = True
    """Whether the numbers of the objects can matter; then every expression is asked under several numberings."""

    def listen(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """For each image float [E, M + 1]: probabilities that expression e means mask m and no other; the last column is
        none or several. Rows sum to 1; a row of NaN is a question without an answer."""
        ...

    def fits(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """For each image float [E, M]: the probability that expression e fits mask m, whatever else it fits.

        Only asked for multi-target and no-target expressions. NotImplementedError where the listener cannot tell.
        """
        raise NotImplementedError


@runtime_checkable
class PartListener(Listener, Protocol):
    """A listener that asks a server, and so says by `RUNS_ELSEWHERE` of its settings; a signal ends its work at any moment."""

    resolved: Mapping[str, Any] = {}
    """What was left to the server to decide, as it was; the stage notes it with the part."""

    def part(self, part: PartAtWork) -> AbstractContextManager[None]:
        """Within the block answers are kept in `part.journal`; at its end `part.notes` says what they came to, and as
        `unanswered`, by image, why questions have no answer."""
        ...


PROTOCOLS: dict[str, type] = {
    "segmenter": Segmenter,
    "proposer": Proposer,
    "captioner": Captioner,
    "scorer": Scorer,
    "nouns": NounFinder,
    "listener": Listener,
}
"""Role -> what the backend's `load` returns. `none`, no proposer and no listener, returns None."""
