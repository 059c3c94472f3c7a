"""What is left to do: the parts of the plan that have no valid answer yet, and the tasks made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest, PartEntry
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.workspace import UPSTREAM
from pseudoris_cli.work import PartTask, Selection


@dataclass
class Backlog:
    """The state of a stage against its plan and the stages before."""

    stage: str
    plan: Plan
    manifest: Manifest
    before: dict[str, Manifest]
    """The manifests of the stages before, by stage; all share the plan's parts."""
    reads: tuple[str, ...] = ()
    """The stages whose parts the worker reads."""
    source: Source | None = None
    changed: int = field(default=0, init=False)
    """Parts found open because an image changed."""

    def __post_init__(self) -> None:
        self.starts = self._running_totals() if self.stage == "export" else {}

    # --- upstream ---------------------------------------------------------------------------------------------------

    def upstream_entry(self, part: int) -> PartEntry | None:
        """The part of the stage before, if it is there, whole, and made from the parts that are now before it."""
        stage = UPSTREAM[self.stage]
        return self._valid(stage, part) if stage else None

    def _valid(self, stage: str, part: int) -> PartEntry | None:
        manifest = self.before[stage]
        entry = manifest.entries.get(part)
        if entry is None or not manifest.is_whole(entry):
            return None
        parent = UPSTREAM[stage]
        if parent is None:
            return entry
        origin = self._valid(parent, part)
        return entry if origin and origin.file.sha256 == entry.upstream else None

    def refuse_incomplete(self, selection: Selection) -> int:
        """UsageError (exit 2) if the stage before lacks parts, unless that is allowed; returns how many it lacks."""
        stage = UPSTREAM[self.stage]
        if stage is None:
            return 0
        lacking = sum(self.upstream_entry(part.part) is None for part in self.plan.parts)
        if lacking and not selection.allow_partial:
            command = "filter" if stage == "scores" else stage
            raise UsageError(
                f"{stage} is incomplete: {lacking} of {len(self.plan)} parts are missing, damaged or out of date; "
                f"run `pseudoris {command}` first, or take what is there with --allow-partial"
            )
        return lacking

    def refuse_changed(self, selection: Selection) -> None:
        """UsageError if images changed since their masks were made (their captions would fit another picture)."""
        if self.source is None or "masks" not in self.before or selection.allow_partial:
            return
        manifest = self.before["masks"]
        changed = sum(_has_changed(image, self.source) for e in manifest.entries.values() for image in e.images)
        if changed:
            raise UsageError(f"{changed} images changed since their masks were made; run `pseudoris masks` first")

    # --- tasks ------------------------------------------------------------------------------------------------------

    def pending(self, selection: Selection) -> list[int]:
        """The parts to do, in order."""
        return [
            part.part for part in self.plan.parts if selection.takes(part.part) and self._is_open(part.part, selection)
        ]

    def _is_open(self, part: int, selection: Selection) -> bool:
        upstream = self.upstream_entry(part)
        if UPSTREAM[self.stage] and upstream is None:
            return False
        entry = self.manifest.entries.get(part)
        if entry is None or not self.manifest.is_whole(entry) or entry.upstream != self._origin(part, upstream):
            return True
        if selection.retry_failed and entry.counts.get("failed"):
            return True
        if self.stage == "masks" and self.source and any(_has_changed(image, self.source) for image in entry.images):
            self.changed += 1
            return True
        return False

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
                i.key: f"{UPSTREAM[self.stage]}: {i.error}"
                for i in answers
                if i.status in ("failed", "gone") or i.error
            }
        paths: dict[str, Path] = {}
        for stage in self.reads:
            if entry := self.before[stage].entries.get(part):
                paths[stage] = self.before[stage].path_of(entry)
        return PartTask(
            part=part,
            images=images,
            wanted=frozenset(wanted),
            upstream=paths,
            upstream_digest=self._origin(part, upstream),
            absent=absent,
            start=self.starts.get(part, {}),
        )

    def _origin(self, part: int, upstream: PartEntry | None) -> str | None:
        """What a part is made from: the digest of the part before it, and its first ids where rows are numbered."""
        if upstream is None:
            return None
        start = self.starts.get(part)
        return upstream.file.sha256 + (f"+{start['refs']}+{start['sentences']}" if start else "")

    def _running_totals(self) -> dict[int, dict[str, int]]:
        """Refs and sentences in all parts before each part, from the notes of the filter stage: ids follow the plan's order."""
        totals, refs, sentences = {}, 0, 0
        for part in self.plan.parts:
            totals[part.part] = {"refs": refs, "sentences": sentences}
            if entry := self.before["filter"].entries.get(part.part):
                refs += entry.notes["kept_masks"]
                sentences += entry.notes["kept"]
        return totals


def _has_changed(image: ImageOutcome, source: Source) -> bool:
    """Whether the bytes are others than those recorded; size and mtime are looked at first, the digest decides."""
    stamp = source.stamp(image.key)
    if stamp is None:
        return False  # gone: what was made from it stays
    if image.size is None:
        return image.status == "gone"
    if (stamp.size, stamp.mtime_ns) == (image.size, image.mtime_ns):
        return False
    if image.sha256 is None:
        return True
    try:
        return hashlib.sha256(source.read(image.key)).hexdigest() != image.sha256
    except OSError:
        return False
