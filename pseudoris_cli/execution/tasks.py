"""What a stage worker gets and gives back: the values between the runner and the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias

from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.records import Failure, ImageRef
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.sources.base import Source, Stamp
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.schema import Columns

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was read of an image: stamp and sha256 of its bytes; None where there were none."""

    stamp: Stamp | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Selection:
    """Which parts a run may take, and how strict it is."""

    shard: tuple[int, int] | None = None
    retry_failed: bool = False
    allow_partial: bool = False
    mix_devices: bool = False
    """Whether parts may join a version whose other parts were made on another kind of device."""

    def takes(self, part: int) -> bool:
        """Whether the part belongs to this shard."""
        return self.shard is None or part % self.shard[1] == self.shard[0]


@dataclass(frozen=True, slots=True)
class UpstreamPart:
    """A part of a stage before: its file and the digest that the manifest lists."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to do: its images, which of them need pixels, and the upstream part files to read."""

    part: int
    images: tuple[ImageRef, ...]
    wanted: frozenset[str]
    upstream: dict[str, UpstreamPart]
    upstream_digest: str | None
    skipped: dict[str, str] = field(default_factory=dict)
    """Images that are not to be worked on, with the reason (they killed the process)."""
    start: dict[str, int] = field(default_factory=dict)
    """Running totals of the parts before, for a stage that numbers its rows."""
    absent: dict[str, str] = field(default_factory=dict)
    """Why the stage before has no rows for an image, where that was a failure."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 of the bytes that an image's masks were made from, for the stages that come later."""

    @property
    def to_load(self) -> list[ImageRef]:
        """The images whose pixels are read, in order."""
        return [ref for ref in self.images if ref.key in self.wanted and ref.key not in self.skipped]

    def only(self, ref: ImageRef) -> PartTask:
        """The same task for a single image."""
        return replace(self, wanted=frozenset({ref.key}))


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that was read and decoded: upright RGB, and what it was read from."""

    ref: ImageRef
    image_rgb: np.ndarray
    stamp: Stamp | None
    sha256: str


@dataclass(frozen=True, slots=True)
class UnreadImage:
    """An image that could not be read or decoded."""

    ref: ImageRef
    failure: Failure
    stamp: Stamp | None = None
    sha256: str | None = None


ProgressCallback = Callable[[float, int], None]
"""Is told how many more images of a part are done, in fractions of them too, and how many rows they gave."""


def no_progress(images: float, rows: int) -> None:
    """For work that nobody watches."""


@dataclass(frozen=True, slots=True)
class PartInput:
    """A part on its way to the worker: pixels come lazily, so that memory does not grow with the part."""

    task: PartTask
    images: Iterator[LoadedImage | UnreadImage]
    columns: dict[str, Columns]
    on_progress: ProgressCallback = no_progress


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The worker's answer for one image: rows (none: an explicit empty), or a failure."""

    rows: Sequence[dict[str, Any]] = ()
    failure: Failure | None = None


@dataclass(slots=True)
class PartResult:
    """The worker's answer for a part: all rows as columns, an answer per image, and notes for the manifest."""

    columns: Columns
    answers: dict[str, tuple[int, Failure | None]]
    notes: dict[str, Any] = field(default_factory=dict)
    fingerprints: dict[str, Fingerprint] = field(default_factory=dict)
    """What each image was read from; filled in by the engine."""


class Worker(Protocol):
    """A stage at work, with its networks loaded."""

    def run(self, part: PartInput) -> PartResult:
        """Do a part. An image that fails is a Failure; only what stops the whole run raises."""
        ...


@dataclass(frozen=True, slots=True)
class ImageReading:
    """How a stage's images are read."""

    source: Source
    max_pixels: int
    """Larger images are failures."""
    decode_threads: int
    """Threads that read images ahead of the worker."""
    decode_ahead: int
    """Images read ahead of the worker."""


class StageSpec:
    """A stage as the runner sees it; picklable, so that a worker can be made in another process.

    This is the base of stages that read rows only. Stages that look at images derive from `ImageStage`.
    """

    name: ClassVar[str]

    @property
    def reading(self) -> ImageReading | None:
        """How images are read; None for a stage that needs no pixels."""
        return None

    @property
    def source(self) -> Source | None:
        """Where pixels come from; None for a stage that needs none."""
        return self.reading.source if self.reading else None

    @property
    def runs_elsewhere(self) -> bool:
        """Whether the work is done by a server: no device is used, and a part can be left at any moment without loss."""
        return False

    def placed(self, folder: Path, writer: str) -> StageSpec:
        """The same stage, told in which folder and under which name its parts are written."""
        return self

    def clean_up(self) -> None:
        """Called when a part was committed, or none is left to do: what was kept for the part at work may go."""

    def running_totals(self, plan: Plan, before: Mapping[str, Manifest]) -> dict[int, dict[str, int]]:
        """For a stage that numbers its rows over the whole plan: what the parts before each part amount to."""
        return {}

    def make_worker(self) -> Worker:
        """Load the networks; called once per process."""
        raise NotImplementedError


@dataclass(frozen=True)
class NetworkContext:
    """What a stage that runs networks on images is given, beside its settings."""

    numerics: Numerics
    device: DeviceRequest
    reading: ImageReading


ContextMaker: TypeAlias = Callable[[], NetworkContext]
"""Opens the source and names the device, for the stages that need them."""


@dataclass(frozen=True)
class ImageStage(StageSpec):
    """The base of stages that run networks on images."""

    context: NetworkContext

    def device_kind(self) -> str:
        """`cpu`, `cuda` or `mps`; imports torch."""
        return self.context.device.resolve(silent=True).partition(":")[0]

    @property
    def reading(self) -> ImageReading:
        return self.context.reading
