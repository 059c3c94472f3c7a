"""The only loop: pending parts → decode ahead → worker → part → manifest."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pseudoris_cli.engines.base import Engine, Finished
from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.pending import Backlog
from pseudoris_cli.stopping import Stopper
from pseudoris_cli.storage.breadcrumb import Breadcrumb
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter, PartEntry, writer_name
from pseudoris_cli.storage.workspace import Artifact
from pseudoris_cli.work import PartTask, Selection, StageSpec

HOPELESS_PARTS = 2


class Observer(Protocol):
    """Who is told how a run goes (the progress bar)."""

    def begin(self, stage: str, images: int, done: int, mended: list[str]) -> None:
        """A run begins: images of its parts, how many are done already, and what a crash had left behind."""
        ...

    def part(self, entry: PartEntry) -> None:
        """A part was committed."""
        ...

    def end(self) -> None:
        """The run is over, well or not."""
        ...


@dataclass
class Summary:
    """What a run of one stage came to."""

    stage: str
    version: str
    parts: int = 0
    parts_done_before: int = 0
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    total_counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lacking: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def nothing_to_do(self) -> bool:
        """Whether every part had been done before."""
        return self.parts == 0


@dataclass(frozen=True)
class Job:
    """One run of one stage."""

    artifact: Artifact
    spec: StageSpec
    backlog: Backlog
    selection: Selection
    engine: Engine
    part_header: dict[str, Any]


def run(job: Job, observer: Observer, stopper: Stopper) -> Summary:
    """Do all pending parts of a stage and commit them one by one.

    Raises UsageError for an incomplete upstream, EnvironmentStop for a full disk, a lost device or a taken lock,
    Interrupted when stopped; what was committed is kept in every case.
    """
    started = time.perf_counter()
    summary = Summary(job.spec.name, job.artifact.version)
    summary.lacking = job.backlog.refuse_incomplete(job.selection)
    writer = writer_name(job.selection.shard)
    try:
        with ManifestWriter(job.artifact.folder, job.spec.name, writer, job.part_header) as manifest:
            job.backlog.manifest = manifest.manifest
            pending = job.backlog.pending(job.selection)
            if pending:
                job.backlog.refuse_changed(job.selection)
            summary.parts_done_before = sum(job.selection.takes(p.part) for p in job.backlog.plan.parts) - len(pending)
            _announce(job, observer, manifest, pending)
            try:
                _work(job, manifest, pending, Breadcrumb(job.artifact.folder, writer), (observer, stopper, summary))
            finally:
                observer.end()
            summary.total_counts = manifest.manifest.counts()
    except OSError as error:
        raise _environment(error, job) from error
    summary.seconds = time.perf_counter() - started
    if stopper.requested and summary.parts < len(pending):
        raise stopper.interrupted()
    return summary


def _announce(job: Job, observer: Observer, manifest: ManifestWriter, pending: list[int]) -> None:
    counts = {p.part: p.count for p in job.backlog.plan.parts if job.selection.takes(p.part)}
    todo = sum(counts[part] for part in pending)
    total = sum(counts.values())
    mended = [f"removed {name}, left by a crash" for name in manifest.removed]
    if manifest.cut:
        mended.append("cut an unfinished line off the manifest")
    observer.begin(job.spec.name, total, total - todo, mended)


def _work(
    job: Job,
    manifest: ManifestWriter,
    pending: list[int],
    breadcrumb: Breadcrumb,
    watch: tuple[Observer, Stopper, Summary],
) -> None:
    observer, stopper, summary = watch
    if not pending:
        breadcrumb.close()
        return
    hopeless = 0
    try:
        for finished in job.engine.run(job.spec, _tasks(job, manifest, pending, breadcrumb), breadcrumb, stopper):
            entry = _commit(manifest, finished)
            observer.part(entry)
            summary.parts += 1
            summary.rows += entry.file.rows
            for status, count in entry.counts.items():
                summary.counts[status] = summary.counts.get(status, 0) + count
            hopeless = hopeless + 1 if set(entry.counts) == {"failed"} else -len(pending)
            if hopeless == HOPELESS_PARTS and summary.parts < len(pending):
                reason = next(image.error for image in entry.images if image.error)
                raise EnvironmentStop(
                    f"every image of the first {HOPELESS_PARTS} parts failed, so the run was stopped; the last reason was: "
                    f"{reason}\nmend the cause, then run again with --retry-failed (`pseudoris status --failed` lists them)"
                )
            if stopper.requested:
                break
    finally:
        breadcrumb.close()


def _tasks(job: Job, manifest: ManifestWriter, pending: list[int], breadcrumb: Breadcrumb) -> Iterator[PartTask]:
    """The pending tasks, less those that another writer has finished meanwhile."""
    open_at_start = dict(manifest.manifest.entries)
    for task in job.backlog.tasks(pending):
        manifest.manifest.refresh()
        if manifest.manifest.entries.get(task.part) is not open_at_start.get(task.part):
            continue
        yield replace(task, skipped=breadcrumb.killers_of(task.part))


def _commit(manifest: ManifestWriter, finished: Finished) -> PartEntry:
    task, result = finished.task, finished.result
    images = []
    for ref in task.images:
        rows, failure = result.answers.get(ref.key, (0, None))
        stamp, digest = result.origins.get(ref.key, (None, None))
        if ref.key in task.skipped:
            status, error = "failed", task.skipped[ref.key]
        elif failure:
            status, error = failure.status, failure.reason
        else:
            status, error = ("done" if rows else "empty"), task.absent.get(ref.key)
        size, mtime = (stamp.size, stamp.mtime_ns) if stamp else (None, None)
        images.append(ImageOutcome(ref.key, status, rows, error, size, mtime, digest))  # type: ignore[arg-type]
    return manifest.commit(task.part, result.columns, images, task.upstream_digest, result.notes, finished.seconds)


def _environment(error: OSError, job: Job) -> EnvironmentStop:
    where = job.artifact.folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnvironmentStop(
            f"the disk is full ({where}); committed parts are kept. Free space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return EnvironmentStop(
            f"cannot write in {where}: {error.strerror}; committed parts are kept. Check its permissions"
        )
    return EnvironmentStop(f"{where}: {error}; committed parts are kept, run the same command again")
