"""What is left to do: the parts of the plan that have no valid answer yet, and the tasks made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.crash_log import KILLED_ALONE
from pseudoris_cli.execution.tasks import PartTask, Selection, UpstreamPart
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest, PartEntry
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.stage_table import FIRST, upstream_of
from pseudoris_cli.storage.stage_table import stage as stage_row


@dataclass
class Backlog:
    """The state of a stage against its plan and the stages before."""

    stage: str
    plan: Plan
    before: dict[str, Manifest]
    """The manifests of the stages before, by stage; all share the plan's parts."""
    reads: tuple[str, ...] = ()
    """The stages whose parts the worker reads."""
    source: Source | None = None
    manifest: Manifest = field(init=False)
    """The stage's own manifest; set once its lock is held."""

    starts: dict[int, dict[str, int]] = field(default_factory=dict)
    """Running totals of the parts before each part, for a stage that numbers its rows."""

    def __post_init__(self) -> None:
        self.lineage = Lineage(self.before)
        self.upstream_stage = upstream_of(self.stage, self.before)

    # --- upstream ---------------------------------------------------------------------------------------------------

    def upstream_entry(self, part: int) -> PartEntry | None:
        """The part of the stage before, if it is there, intact, and made from the parts that are now before it."""
        return self.lineage.entry(self.upstream_stage, part) if self.upstream_stage else None

    def check_upstream(self, selection: Selection) -> int:
        """UsageError (exit 2) if the stage before lacks parts of the selection, unless that is allowed; returns how many.

        A shard asks for its own parts only: the others may still be at work, in the same command.
        """
        stage = self.upstream_stage
        if stage is None:
            return 0
        wanted = [part.part for part in self.plan.parts if selection.takes(part.part)]
        lacking = sum(self.upstream_entry(part) is None for part in wanted)
        if lacking and not selection.allow_partial:
            of = f"{len(wanted)} parts" if selection.shard is None else f"this shard's {len(wanted)} parts"
            raise UsageError(
                f"{stage} is incomplete: {lacking} of {of} are missing, damaged or out of date; "
                f"run `pseudoris {stage_row(stage).command}` first, or take what is there with --allow-partial"
            )
        return lacking

    def check_images(self, parts: list[int], selection: Selection) -> None:
        """UsageError if images of these parts changed since their masks were made (captions would fit another image)."""
        if self.source is None or FIRST not in self.before or selection.allow_partial:
            return
        entries = self.before[FIRST].entries
        changed = sum(_has_changed(image, self.source) for part in parts for image in entries[part].images)
        if changed:
            images = "1 image" if changed == 1 else f"{changed:,} images"
            raise UsageError(
                f"{images} changed since the masks were made; run `pseudoris masks` first, or `pseudoris run` again"
            )

    # --- tasks ------------------------------------------------------------------------------------------------------

    def pending(self, selection: Selection) -> list[int]:
        """The parts to do, in order."""
        return [
            part.part for part in self.plan.parts if selection.takes(part.part) and self._is_open(part.part, selection)
        ]

    def _is_open(self, part: int, selection: Selection) -> bool:
        upstream = self.upstream_entry(part)
        if self.upstream_stage and upstream is None:
            return False
        entry = self.manifest.entries.get(part)
        if (
            entry is None
            or not self.manifest.is_intact(entry)
            or entry.upstream != self._upstream_digest(part, upstream)
        ):
            return True
        if selection.retry_failed and any(self._may_recover(image) for image in _without_rows(entry)):
            return True
        if selection.retry_failed and entry.notes.get("failed_masks"):
            return True
        return self.stage == FIRST and any(_has_changed(image, self.source) for image in entry.images)

    def _may_recover(self, image: ImageOutcome) -> bool:
        """Whether another try could end better: a failure, or an image that is there again."""
        return image.status == "failed" or (self.source is not None and self.source.stamp(image.key) is not None)

    def given_up(self, selection: Selection, pending: Collection[int]) -> list[int]:
        """Parts, other than the pending ones, with images that an earlier run gave up because they killed the process."""
        entries = ((part.part, self.manifest.entries.get(part.part)) for part in self.plan.parts)
        return [
            part
            for part, entry in entries
            if entry and part not in pending and selection.takes(part) and self.source and killed_alone(entry)
        ]

    def tasks(self, parts: list[int]) -> Iterator[PartTask]:
        """The tasks of these parts, made as they are asked for."""
        for part in parts:
            yield self._task(part)

    def _task(self, part: int) -> PartTask:
        images = tuple(self.plan.images(part))
        upstream = self.upstream_entry(part)
        wanted = {image.key for image in images if self.source}
        absent: dict[str, str] = {}
        if upstream:
            answers = upstream.images
            wanted = {image.key for image in answers if image.status == "done" and self.source}
            absent = {
                i.key: f"{self.upstream_stage}: {i.error}" for i in answers if i.status in ("failed", "gone") or i.error
            }
        parts: dict[str, UpstreamPart] = {}
        for stage in self.reads:
            if entry := self.before[stage].entries.get(part):
                parts[stage] = UpstreamPart(self.before[stage].path_of(entry), entry.file.sha256)
        masks = self.before[FIRST].entries[part].images if upstream and self.source else []
        return PartTask(
            part=part,
            images=images,
            wanted=frozenset(wanted),
            upstream=parts,
            upstream_digest=self._upstream_digest(part, upstream),
            absent=absent,
            start=self.starts.get(part, {}),
            digests={image.key: image.sha256 for image in masks if image.sha256},
        )

    def _upstream_digest(self, part: int, upstream: PartEntry | None) -> str | None:
        """What a part is made from: the digest of the part before it, and its first ids where rows are numbered."""
        if upstream is None:
            return None
        start = self.starts.get(part)
        return upstream.file.sha256 + (f"+{start['refs']}+{start['sentences']}" if start else "")


def killed_alone(entry: PartEntry) -> list[ImageOutcome]:
    """The images of a part that were given up because they killed the process."""
    if not entry.counts.get("failed"):
        return []
    return [
        image for image in entry.images if image.status == "failed" and (image.error or "").startswith(KILLED_ALONE)
    ]


def _without_rows(entry: PartEntry) -> list[ImageOutcome]:
    if not (entry.counts.get("failed") or entry.counts.get("gone")):
        return []
    return [image for image in entry.images if image.status in ("failed", "gone")]


def _has_changed(image: ImageOutcome, source: Source | None) -> bool:
    """Whether the bytes are others than those recorded; size and mtime are looked at first, the digest decides."""
    stamp = source.stamp(image.key) if source else None
    if source is None or stamp is None:
        return False  # gone: what was made from it stays
    if image.size is None:
        return True  # it was gone, or no file at all
    if (stamp.size, stamp.mtime_ns) == (image.size, image.mtime_ns):
        return False
    if image.sha256 is None:
        return True
    try:
        return hashlib.sha256(source.read(image.key)).hexdigest() != image.sha256
    except OSError:
        return False
