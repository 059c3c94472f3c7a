"""Two stages without networks, and processes that die where a test wants them to: what the tests of the spine stand on.

`masks` thresholds pixels, `captions` describes those masks; both go through the real runner, engine and storage.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pseudoris_cli.errors import Interrupted, PseudorisError
from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.engine import Engine
from pseudoris_cli.execution.engine_inprocess import InProcess
from pseudoris_cli.execution.runner import Job, Summary, run
from pseudoris_cli.execution.signals import Stopper, graceful_stop
from pseudoris_cli.execution.tasks import (
    ImageReading,
    ImageResult,
    ImageStage,
    LoadedImage,
    NetworkContext,
    PartInput,
    PartResult,
    Selection,
)
from pseudoris_cli.records import Caption, Mask
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.sources import registry
from pseudoris_cli.sources.base import Source
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.sources.registry import INDEX
from pseudoris_cli.stages.batching import run_batches
from pseudoris_cli.storage import files
from pseudoris_cli.storage.manifest import ImageOutcome
from pseudoris_cli.storage.rows import caption_row, mask_row, masks_by_image
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Artifact, Workspace

Image.init()  # once here instead of in every forked child
STEPS = ("write_temporary", "sync_file", "publish", "sync_folder", "append_line", "sync_line")
Trick = Callable[[str, int], None]
"""Called with the key and the number of images in the batch, before an image is worked on."""


def no_trick(key: str, together: int) -> None:
    """Nothing special happens."""


@dataclass(frozen=True)
class MaskSpec(ImageStage):
    """Pixels above the mean are one mask, those below another; an image of one colour is empty."""

    trick: Trick = no_trick
    name: ClassVar[str] = "masks"

    def make_worker(self) -> MaskSpec:
        return self

    def run(self, part: PartInput) -> PartResult:
        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            for image in batch:
                self.trick(image.ref.key, len(part.task.to_load))
            return [ImageResult([mask_row(image.ref, mask) for mask in _masks(image.image_rgb)]) for image in batch]

        return run_batches(part, 2, work, self.name)


@dataclass(frozen=True)
class CaptionSpec(MaskSpec):
    """One sentence for each mask."""

    name: ClassVar[str] = "captions"

    def run(self, part: PartInput) -> PartResult:
        masks = masks_by_image(part.columns["masks"])

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            for image in batch:
                self.trick(image.ref.key, len(part.task.to_load))
            return [
                ImageResult([caption_row(image.ref, c) for c in _captions(image, masks[image.ref.key])])
                for image in batch
            ]

        return run_batches(part, 2, work, self.name)


def _masks(image_rgb: np.ndarray) -> list[Mask]:
    grey = image_rgb.astype(np.float64).mean(axis=2)
    found = []
    for chosen in (grey > grey.mean(), grey < grey.mean()):
        if chosen.any():
            rle = encode_rle(chosen)
            share = float(chosen.mean())
            found.append(Mask(len(found), rle, rle_bbox(rle), rle_area(rle), share, 1 - share))
    return found


def _captions(image: LoadedImage, masks: tuple[Mask, ...]) -> list[Caption]:
    mean = image.image_rgb.mean()
    return [
        Caption(mask.mask_id, 0, f"{mask.area} pixels of {mean:.3f}", "masked", "beam", -mean, mask.mask_id)
        for mask in masks
    ]


# --- images ---------------------------------------------------------------------------------------------------------


def paint(path: Path, seed: int, size: tuple[int, int] = (8, 6)) -> Path:
    """A small picture of its own; seed < 0 gives a picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(abs(seed)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels if seed >= 0 else np.full_like(pixels, abs(seed))).save(path)
    return path


def paint_folder(folder: Path, count: int) -> Path:
    """`count` pictures, among them one that is empty and one that cannot be decoded (for count > 5)."""
    for number in range(count):
        paint(folder / f"{number:03d}.png", -7 if number == 3 else number)
    if count > 5:
        (folder / "005.png").write_bytes(b"no picture")
    return folder


# --- running --------------------------------------------------------------------------------------------------------


class Silent:
    """Nobody watches."""

    def begin(self, stage: str, images: int, done: int, recovered: list[str]) -> None: ...

    def part(self, entry: Any) -> None: ...

    def end(self) -> None: ...


def _folder(images: Path, index: Path) -> Source:
    return Folder(images)


def recognised(images: Path, index: Path) -> Source:
    """The source at a path as the command opens it, with its index kept."""
    return registry.open_source(registry.describe(images, {}, None), index)


@dataclass
class Bench:
    """A work directory with its source, and how its stages run."""

    work: Path
    images: Path
    selection: Selection = field(default_factory=Selection)
    part_size: int = 4
    limit: int | None = None
    trick: Trick = no_trick
    part_timeout: float | None = None
    decode_ahead: int = 4
    flavour: int = 0
    """Part of the version: another flavour is another version."""
    engine: Engine | None = None
    """Where the worker runs; None: in this process."""
    opener: Callable[[Path, Path], Source] = _folder
    """Opens the source at `images`; the second path is where it may keep an index."""

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.work)

    def masks(self) -> Summary:
        """Plan what is new and run the first stage."""
        with graceful_stop() as stopper:
            self.workspace.create()
            source = self._source()
            self.workspace.plan().extend(source.images(), self.part_size, self.limit)
            spec = MaskSpec(self._context(source), self.trick)
            return self._run(self._open("masks", None), spec, (), stopper)

    def captions(self) -> Summary:
        """Run the second stage on the current masks."""
        with graceful_stop() as stopper:
            artifact = self._open("captions", self.workspace.latest("masks").version)
            spec = CaptionSpec(self._context(self._source()), self.trick)
            return self._run(artifact, spec, ("masks",), stopper)

    def _source(self) -> Source:
        return self.opener(self.images, self.work / INDEX)

    def _context(self, source: Source) -> NetworkContext:
        reading = ImageReading(source, max_pixels=1_000_000, decode_threads=2, decode_ahead=self.decode_ahead)
        return NetworkContext(Numerics(), DeviceRequest(device="cpu"), reading)

    def _open(self, stage: str, upstream: str | None) -> Artifact:
        content = {"schema": SCHEMA_VERSION, "upstream": upstream, "plan": "plan.jsonl", "settings": self.flavour}
        return self.workspace.open_version(stage, content, {})

    def _run(self, artifact: Artifact, spec: ImageStage, reads: tuple[str, ...], stopper: Stopper) -> Summary:
        chain = self.workspace.chain(artifact)
        before = {stage: made.manifest() for stage, made in chain.items() if stage != artifact.stage}
        backlog = Backlog(artifact.stage, self.workspace.plan(), before, reads, spec.source)
        job = Job(artifact, spec, backlog, self.selection, self.engine or InProcess(self.part_timeout), artifact.header)
        try:
            return run(job, Silent(), stopper)
        finally:
            self.workspace.settle(artifact)


# --- looking --------------------------------------------------------------------------------------------------------


def rows(work: Path, stage: str) -> list[dict[str, Any]]:
    """All rows of the current version, in plan order, read through the manifest; digests are checked."""
    found = []
    artifact = Workspace(work).latest(stage)
    manifest = artifact.manifest()
    for _, entry in sorted(manifest.entries.items()):
        assert manifest.is_intact(entry, digest=True), entry
        table = pq.read_table(manifest.path_of(entry))
        assert table.num_rows == entry.file.rows
        found += table.to_pylist()
    return found


def outcomes(work: Path, stage: str) -> dict[str, ImageOutcome]:
    """What became of every image; each is answered exactly once."""
    found: dict[str, ImageOutcome] = {}
    for _, entry in sorted(Workspace(work).latest(stage).manifest().entries.items()):
        for image in entry.images:
            assert image.key not in found, f"{image.key} is answered twice"
            found[image.key] = image
    return found


def file_set(work: Path) -> set[str]:
    """Every file below a work directory."""
    return {path.relative_to(work).as_posix() for path in work.rglob("*") if not path.is_dir()}


def check_whole(work: Path, stage: str) -> None:
    """Listed <=> readable, and each planned image answered once."""
    workspace = Workspace(work)
    artifact = workspace.latest(stage)
    planned = [ref.key for ref in workspace.plan(artifact.plan_name).all_images()]
    assert len(planned) == len(set(planned))
    assert sorted(outcomes(work, stage)) == sorted(planned)
    listed = {entry.file.name for entry in artifact.manifest().entries.values()}
    assert {path.name for path in artifact.folder.glob("*.parquet")} == listed
    counted: dict[str, int] = dict.fromkeys(planned, 0)
    for row in rows(work, stage):
        counted[row["image_key"]] += 1
    assert counted == {key: image.rows for key, image in outcomes(work, stage).items()}


# --- dying ----------------------------------------------------------------------------------------------------------


def in_child(action: Callable[[], Any], user: int | None = None) -> int:
    """Run in a forked process; its exit code as the command line's, or minus the signal that killed it."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        action()
        code = 0
    except (PseudorisError, Interrupted) as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def watch_steps(seen: Callable[[str, bool], None]) -> None:
    """Call `seen(step, after)` around every durable step from now on. Only for use in a child: nothing is put back."""
    for name in STEPS:
        setattr(files, name, _around(name, getattr(files, name), seen))


def _around(name: str, step: Callable[..., Any], seen: Callable[[str, bool], None]) -> Callable[..., Any]:
    def watched(*arguments: Any) -> Any:
        seen(name, False)
        answer = step(*arguments)
        seen(name, True)
        return answer

    return watched


def kill_at(number: int, sign: int = signal.SIGKILL) -> Callable[[str, bool], None]:
    """Send ourselves a signal at the n-th moment (before and after each step are two moments)."""
    count = 0

    def seen(step: str, after: bool) -> None:
        nonlocal count
        if count == number:
            count += 1
            os.kill(os.getpid(), sign)
            if sign == signal.SIGKILL:
                signal.pause()
        count += 1

    return seen


def moments(action: Callable[[], Any]) -> list[str]:
    """The durable steps of an action, two entries each: `before NAME` and `after NAME`."""
    reading, writing = os.pipe()

    def told() -> None:
        watch_steps(lambda step, after: _tell(writing, f"{'after' if after else 'before'} {step}\n"))
        action()

    pid_status = in_child(told)
    os.close(writing)
    with os.fdopen(reading) as lines:
        found = lines.read().splitlines()
    assert pid_status == 0
    return found


def _tell(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode())
