"""Read the values that a report shows from the artifacts. Reads no image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pseudoris_cli.records import ImageStatus, Mask
from pseudoris_cli.report.choosing import ImageChoice, PlannedImage, choose
from pseudoris_cli.report.histograms import Progress, Totals, compute_totals
from pseudoris_cli.report.versions import Parts, chain_of
from pseudoris_cli.storage.manifest import STATUSES
from pseudoris_cli.storage.rows import masks_by_image, optional_float, rows_of_images
from pseudoris_cli.storage.workspace import Artifact, Workspace

MOST_FAILURES = 200


@dataclass(frozen=True, slots=True)
class ShownCandidate:
    """A candidate expression with its scores and the verdict of the filter.

    Scores are None and texts empty where their stage has not run; `kept` is None before the filter has run."""

    mask_id: int
    candidate_id: int
    caption: str
    crop: str
    sampler: str
    logprob: float
    tokens: int
    noun: str = ""
    correctness: float | None = None
    uniqueness: float | None = None
    doc: float | None = None
    listener: float | None = None
    choice: int | None = None
    """The mask that the listener picked, -1 for none or several; None where it was not asked."""
    flags: str = ""
    duplicates: int = 1
    kept: bool | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image with its masks and candidates. `sha256` is that of the file that the masks were made from; `status` is None
    for an image that no stage has processed yet."""

    key: str
    status: ImageStatus | None
    error: str | None
    sha256: str | None
    masks: tuple[Mask, ...]
    candidates: tuple[ShownCandidate, ...]


@dataclass(frozen=True)
class StageVersion:
    """One version of one stage: its progress in images and rows, and its header (`artifact.json`).

    `images` counts all planned images, `counts` the processed ones by status, `pending` the rest."""

    stage: str
    version: str
    upstream: str | None
    images: int
    counts: dict[ImageStatus, int]
    pending: int
    rows: int
    header: dict[str, Any]

    @property
    def checkpoints(self) -> dict[str, dict[str, str]]:
        """Role -> name and digest of the weights."""
        recorded: dict[str, dict[str, str]] = self.header.get("checkpoints", {})
        return {role: weights for role, weights in recorded.items() if weights}


@dataclass(frozen=True)
class Failed:
    """An image that failed or was gone in a stage, and the reason."""

    stage: str
    key: str
    status: str
    reason: str


@dataclass(frozen=True)
class Report:
    """The values that a page shows, except images."""

    work: str
    source: dict[str, Any]
    stages: tuple[StageVersion, ...]
    deepest: str
    totals: Totals
    choice: ImageChoice
    images: tuple[ShownImage, ...]
    failed: tuple[Failed, ...]

    @property
    def is_judged(self) -> bool:
        """Whether a listener was asked and the filter has heard it."""
        return self.deepest == "filter" and any(made.stage == "judge" for made in self.stages)

    @property
    def max_pixels(self) -> int:
        """The largest image, in pixels, that the masks stage accepted."""
        return int(self.stages[0].header["settings"]["max_pixels"])


def gather(workspace: Workspace, choice: ImageChoice, start: Artifact | None, progress: Progress) -> Report:
    """Read what a report of a work directory shows (see `versions.chain_of` for `start`).

    Reads every part once for the figures, and the parts of the chosen images again. Raises UsageError if there are no masks yet.
    """
    chain = chain_of(workspace, start)
    parts = Parts(workspace, chain)
    deepest = parts.deepest  # first, because it raises for an empty work directory
    images = _images(parts, choose(parts, choice))
    return Report(
        work=str(workspace.root.resolve()),
        source=workspace.source() or {},
        stages=tuple(_stage(parts, artifact) for artifact in chain.values()),
        deepest=deepest,
        totals=compute_totals(parts, progress),
        choice=choice,
        images=images,
        failed=tuple(islice(_failed(parts), MOST_FAILURES)),
    )


def _stage(parts: Parts, artifact: Artifact) -> StageVersion:
    counts = dict.fromkeys(STATUSES, 0)
    rows = 0
    for part in parts.covered(artifact.stage):
        entry = parts.entry(artifact.stage, part)
        assert entry is not None
        rows += entry.file.rows
        for status in STATUSES:
            counts[status] += entry.counts.get(status, 0)
    return StageVersion(
        stage=artifact.stage,
        version=artifact.version,
        upstream=artifact.upstream,
        images=parts.plan.image_count,
        counts=counts,
        pending=parts.plan.image_count - sum(counts.values()),
        rows=rows,
        header=artifact.header,
    )


def _failed(parts: Parts) -> Iterator[Failed]:
    for stage, manifest in parts.manifests.items():
        for image in manifest.failures():
            yield Failed(stage, image.key, image.status, image.error or "")


def _images(parts: Parts, chosen: list[PlannedImage]) -> tuple[ShownImage, ...]:
    """The chosen images in the order of `chosen`; each of their parts is read once."""
    wanted: dict[int, list[str]] = defaultdict(list)
    for image in chosen:
        wanted[image.part].append(image.ref.key)
    found: dict[str, ShownImage] = {}
    for part, keys in wanted.items():
        found |= _part_images(parts, part, frozenset(keys))
    return tuple(found[image.ref.key] for image in chosen)


def _part_images(parts: Parts, part: int, keys: frozenset[str]) -> dict[str, ShownImage]:
    masks = masks_by_image(parts.columns("masks", part), keys)
    candidates = _candidates(parts, part, keys)
    status: dict[str, tuple[ImageStatus, str | None]] = {}
    digests: dict[str, str | None] = {}
    for stage in parts.manifests:
        entry = parts.entry(stage, part)
        for image in entry.images if entry else ():
            if stage == "masks":
                digests[image.key] = image.sha256
            if image.key not in status or image.status in ("failed", "gone"):
                status[image.key] = image.status, f"{stage}: {image.error}" if image.error else None
    shown = {}
    for key in keys:
        image_status, error = status.get(key, (None, None))
        own, texts = masks.get(key, ()), candidates.get(key, ())
        shown[key] = ShownImage(key, image_status, error, digests.get(key), own, tuple(texts))
    return shown


def _candidates(parts: Parts, part: int, keys: frozenset[str]) -> dict[str, list[ShownCandidate]]:
    """The candidates of the filter; where it has not run, those of the captions, with scores if there are any."""
    rows = rows_of_images(parts.columns("filter", part), keys)
    if not parts.entry("filter", part):
        scores = {_name(row): row for row in rows_of_images(parts.columns("scores", part), keys)}
        rows = [row | scores.get(_name(row), {}) for row in rows_of_images(parts.columns("captions", part), keys)]
    found: dict[str, list[ShownCandidate]] = defaultdict(list)
    for row in rows:
        found[row["image_key"]].append(_candidate(row))
    return found


def _candidate(row: dict[str, Any]) -> ShownCandidate:
    return ShownCandidate(
        mask_id=int(row["mask_id"]),
        candidate_id=int(row["candidate_id"]),
        caption=row["caption"],
        crop=row["crop"],
        sampler=row["sampler"],
        logprob=float(row["logprob"]),
        tokens=int(row["tokens"]),
        noun=row.get("noun", ""),
        correctness=optional_float(row.get("correctness")),
        uniqueness=optional_float(row.get("uniqueness")),
        doc=optional_float(row.get("doc")),
        listener=optional_float(row.get("listener")),
        choice=None if (choice := optional_float(row.get("listener_choice"))) is None else int(choice),
        flags=row.get("flags", ""),
        duplicates=int(row.get("duplicates", 1)),
        kept=bool(row["kept"]) if "kept" in row else None,
        reason=row.get("reason", ""),
    )


def _name(row: dict[str, Any]) -> tuple[str, int, int]:
    return row["image_key"], int(row["mask_id"]), int(row["candidate_id"])
