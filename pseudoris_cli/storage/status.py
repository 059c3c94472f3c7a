"""What a work directory holds: every stage, version, image and failure; and what nothing refers to any more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from pseudoris_cli.storage import files, parts
from pseudoris_cli.storage.locks import exclusive
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest
from pseudoris_cli.storage.plan import PLAN, Plan, images_of, pilot_of
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.versions import Difference, by_date, differences
from pseudoris_cli.storage.workspace import Artifact, Workspace

RECENT_PARTS = 20
RECENT_ROUNDS = 3
"""Times the longest recent part: with many workers, twenty parts may have come at one moment."""
DAMAGED = ".damaged"


@dataclass(frozen=True)
class VersionState:
    """One version of one stage."""

    stage: str
    version: str
    current: bool
    upstream: str | None
    images: int
    counts: dict[str, int]
    pending: int
    parts: int
    parts_planned: int
    rows: int
    bytes: int
    images_per_second: float | None
    seconds_left: float | None
    last_error: str | None
    committed: float | None
    notes: tuple[dict[str, Any], ...] = ()
    """What the stage noted of each part, in the order of the plan."""
    created: str | None = None
    """When it was begun, in ISO 8601."""
    unfinished: bool = False
    """Whether images of its plan are still to be answered."""
    pilot: str | None = None
    """`pilot-8` for a version of a pilot of 8 images."""
    differs: tuple[Difference, ...] = ()
    """In what it differs from the version of the stage that was begun before it (a pilot, from the pilot before it)."""


def version_states(workspace: Workspace) -> Iterator[VersionState]:
    """Every version, stage by stage, in the order in which they were begun."""
    plan = cache(workspace.plan)  # reading that of millions of images takes a while
    for stage in NAMES:
        current = cache(partial(workspace.current, stage))
        before: dict[bool, Artifact] = {}  # whether it is a pilot's -> the last such version
        for artifact in by_date(workspace.versions(stage)):
            is_current = artifact.version == current(artifact.plan_name)
            pilot = artifact.plan_name != PLAN
            last = before.get(pilot) or before.get(False)
            yield _state(plan(artifact.plan_name), artifact, is_current, differences(last, artifact) if last else [])
            before[pilot] = artifact


def state_of(workspace: Workspace, artifact: Artifact) -> VersionState:
    """One version, without what differs from others."""
    current = workspace.current(artifact.stage, artifact.plan_name) == artifact.version
    return _state(workspace.plan(artifact.plan_name), artifact, current, [])


def _state(plan: Plan, artifact: Artifact, current: bool, differs: list[Difference]) -> VersionState:
    manifest = artifact.manifest()
    entries = sorted(manifest.entries.values(), key=lambda entry: entry.committed)
    counts = manifest.counts()
    answered = sum(counts.values())
    rate = images_per_second([(e.committed, e.seconds, sum(e.counts.values())) for e in entries])
    pending = max(0, plan.image_count - answered)
    failed = [entry for entry in entries if entry.counts.get("failed")]
    error = next((image.error for image in failed[-1].images if image.status == "failed"), None) if failed else None
    return VersionState(
        stage=artifact.stage,
        version=artifact.version,
        current=current,
        upstream=artifact.upstream,
        images=plan.image_count,
        counts=counts,
        pending=pending,
        parts=len(entries),
        parts_planned=len(plan),
        rows=sum(entry.file.rows for entry in entries),
        bytes=sum(entry.file.bytes for entry in entries),
        images_per_second=rate,
        seconds_left=pending / rate if rate and pending else None,
        last_error=error,
        committed=entries[-1].committed if entries else None,
        notes=tuple(manifest.entries[part].notes for part in sorted(manifest.entries)),
        created=artifact.header.get("created"),
        unfinished=pending > 0,
        pilot=pilot_of(artifact.plan_name),
        differs=tuple(differs),
    )


def images_per_second(parts: Sequence[tuple[float, float, int]]) -> float | None:
    """Images a second over the most recent parts, given as (time committed, seconds of work, images) by time.

    Counts the time in which any worker or shard was busy, so that those side by side add up and pauses do not count.
    """
    first, longest = len(parts), 0.0
    while first and (len(parts) - first < RECENT_PARTS or parts[-1][0] - parts[first][0] < RECENT_ROUNDS * longest):
        first -= 1
        longest = max(longest, parts[first][1])
    reached = parts[first - 1][0] if first else float("-inf")
    busy = 0.0
    for start, end in sorted((committed - seconds, committed) for committed, seconds, _ in parts[first:]):
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return sum(images for *_, images in parts[first:]) / busy if busy else None


def failures(workspace: Workspace) -> Iterator[tuple[str, ImageOutcome]]:
    """Failed and vanished images of the current version of every stage, or of the one at work where none is current yet."""
    for stage in NAMES:
        if version := workspace.current(stage) or workspace.begun(stage):
            for image in workspace.artifact(stage, version).manifest().failures():
                yield stage, image


def verify_parts(workspace: Workspace) -> Iterator[tuple[str, Path, str]]:
    """Read every listed part and compare its digest: (stage, file, verdict) for each that is not intact.

    A damaged file is renamed with `.damaged`, so that the next run of its stage makes the part anew. EnvironmentStop if
    that is not permitted.
    """
    for stage in NAMES:
        for artifact in workspace.versions(stage):
            manifest = artifact.manifest()
            for _, entry in sorted(manifest.entries.items()):
                path = manifest.path_of(entry)
                if manifest.is_intact(entry, digest=True):
                    continue
                if path.exists():
                    with files.os_errors_as_stop(path.parent):
                        os.replace(path, path.with_name(path.name + DAMAGED))
                        files.sync_folder(path.parent)
                    yield stage, path, "damaged"
                elif Manifest(artifact.folder).entries.get(entry.part) == entry:  # not redone while we were reading
                    yield stage, path, "missing"


def current_chain(workspace: Workspace) -> set[tuple[str, str]]:
    """The versions that later stages use, those that are at work, the fullest of each stage, and all they were made from.

    Pilots are trials: they are no part of it.
    """
    keep: set[tuple[str, str]] = set()
    for stage in NAMES:
        names = {workspace.current(stage), workspace.begun(stage)} - {None}
        kept = [workspace.artifact(stage, name) for name in names if name]
        for artifact in [*kept, *_fullest(workspace, stage, kept)]:
            keep |= {(made.stage, made.version) for made in workspace.chain(artifact).values()}
    return keep


def _fullest(workspace: Workspace, stage: str, kept: Sequence[Artifact]) -> list[Artifact]:
    """The version that has answered the most images, unless one of `kept` has as many; the newest of several."""
    made = [one for one in by_date(workspace.versions(stage)) if one.plan_name == PLAN]
    answered = {one.version: sum(one.manifest().counts().values()) for one in made}
    most = max(answered.values(), default=0)
    if not most or any(answered[one.version] == most for one in kept):
        return []
    return [[one for one in made if answered[one.version] == most][-1]]


def unreferenced(workspace: Workspace) -> Iterator[tuple[Path, str]]:
    """What nothing refers to: entire versions outside the current chain, and unlisted files of all versions that stay."""
    keep = current_chain(workspace)
    for stage in NAMES:
        for folder in sorted(path for path in (workspace.root / stage).glob("*") if path.is_dir()):
            if (stage, folder.name) not in keep:
                yield folder, _reason(workspace, stage, folder.name)
                continue
            listed = {entry.file.name for entry in Manifest(folder).entries.values()}
            for path in sorted(folder.iterdir()):
                stray = parts.writer_of(path.name) and path.name not in listed
                if stray or path.name.endswith(DAMAGED):
                    yield path, "damaged" if path.name.endswith(DAMAGED) else "superseded or left by a crash"


def _reason(workspace: Workspace, stage: str, version: str) -> str:
    """Why nothing refers to a version."""
    if not (workspace.root / stage / version / "artifact.json").exists():
        return "no version: it has no artifact.json"
    artifact = workspace.artifact(stage, version)
    if images := images_of(artifact.plan_name):
        return f"pilot of {images} images"
    if workspace.is_complete(artifact):
        return "not the current version, nor what it was made from"
    return "unfinished, and not the version begun last"


def remove_unreferenced(path: Path) -> None:
    """Delete what `unreferenced` found. EnvironmentStop if a run is at work in its folder, or if it is not permitted."""
    folder = path if path.is_dir() else path.parent
    with files.os_errors_as_stop(folder), ExitStack() as locks:
        for lock in sorted(folder.glob("manifest-*.lock")):
            locks.enter_context(exclusive(lock, "prune"))
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in {entry.file.name for entry in Manifest(folder).entries.values()}:
            path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
