"""The only loop: pending parts → decode ahead → worker → part → manifest."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.execution.backlog import Backlog, killed_alone
from pseudoris_cli.execution.crash_log import KILLED_ALONE, CrashLog
from pseudoris_cli.execution.engine import Engine, Finished
from pseudoris_cli.execution.isolation import try_alone
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import Fingerprint, PartTask, Selection, StageSpec
from pseudoris_cli.records import Failure, ImageRef, ImageStatus
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest, ManifestWriter, PartEntry, writer_name
from pseudoris_cli.storage.workspace import Artifact

MAX_FAILED_PARTS = 2
RETRY_SECONDS = 3600.0
"""How long an image that was given up may take when it is tried again, networks loaded anew."""

log = logging.getLogger("pseudoris")


class Observer(Protocol):
    """Who is told how a run goes (the progress bar)."""

    def begin(self, stage: str, images: int, done: int, recovered: list[str]) -> None:
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
    remarks: list[str] = field(default_factory=list)
    """What of the stage's own data does not fit the images, in lines."""
    left_out: dict[str, int] = field(default_factory=dict)
    """What could not be used, by reason, in all parts of the version."""

    def add(self, entry: PartEntry) -> None:
        """Count a part that was committed."""
        self.parts += 1
        self.rows += entry.file.rows
        for status, count in entry.counts.items():
            self.counts[status] = self.counts.get(status, 0) + count

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
    summary.lacking = job.backlog.check_upstream(job.selection)
    writer = writer_name(job.selection.shard)
    folder = job.artifact.folder
    with files.os_errors_as_stop(folder), ManifestWriter(folder, job.spec.name, writer, job.part_header) as manifest:
        job.backlog.manifest = manifest.manifest
        pending = job.backlog.pending(job.selection)
        job.backlog.check_images(pending, job.selection)
        summary.parts_done_before = sum(job.selection.takes(p.part) for p in job.backlog.plan.parts) - len(pending)
        _announce(job, observer, manifest, pending)
        queue = _Queue(manifest, pending)
        if not pending:
            job.spec.clean_up()
        given_up = job.backlog.given_up(job.selection, pending)
        crash_log = CrashLog(folder, writer, [*pending, *given_up])
        watch = _Watch(observer, stopper, summary)
        try:
            if pending and not stopper.requested:
                _work(job, queue, crash_log, watch)
            for part in given_up:
                if not stopper.requested:
                    _try_again(job, _Queue(manifest, [part]), part, crash_log, watch)
        finally:
            crash_log.close()
            observer.end()
        summary.total_counts = manifest.manifest.counts()
        summary.left_out = left_out(entry.notes for entry in manifest.manifest.entries.values())
        left = queue.left()
    summary.seconds = time.perf_counter() - started
    if left and stopper.requested:
        raise stopper.interrupted()
    assert not left, f"the engine left parts undone: {left[:10]}"
    return summary


def left_out(notes: Iterable[dict[str, Any]]) -> dict[str, int]:
    """What parts noted as left out, by reason."""
    total: Counter[str] = Counter()
    for note in notes:
        total.update(note.get("left_out", {}))
    return dict(total)


@dataclass(frozen=True)
class _Watch:
    """Who is told how a run goes, who may stop it, and what it came to."""

    observer: Observer
    stopper: Stopper
    summary: Summary

    def commit(self, job: Job, queue: _Queue, finished: Finished) -> PartEntry | None:
        """Commit a part, not to be broken off by a signal, and tell of it; None if another writer has done it meanwhile.

        UsageError if its rows may not join those of the other parts.
        """
        if not queue.is_open(finished.task.part):
            return None
        if not job.selection.mix_devices:
            _check_device(queue.manifest.manifest, finished.result.notes.get("device"))
        with self.stopper.shielded():
            entry = _commit(queue.manifest, finished, job.spec.source)
            job.spec.clean_up()
        self.observer.part(entry)
        self.summary.add(entry)
        return entry


class _Queue:
    """The pending parts, and which of them are still open: another writer may finish a part while we are at it."""

    def __init__(self, manifest: ManifestWriter, pending: list[int]) -> None:
        self.manifest, self.pending = manifest, pending
        self._before = {part: manifest.manifest.entries.get(part) for part in pending}

    def is_open(self, part: int) -> bool:
        """Whether nobody has committed the part since the run began."""
        self.manifest.manifest.refresh()
        return self.manifest.manifest.entries.get(part) is self._before[part]

    def left(self) -> list[int]:
        """The parts that nobody has committed."""
        entries = self.manifest.manifest.entries
        return [part for part in self.pending if entries.get(part) is self._before[part]]


def _announce(job: Job, observer: Observer, manifest: ManifestWriter, pending: list[int]) -> None:
    counts = {p.part: p.count for p in job.backlog.plan.parts if job.selection.takes(p.part)}
    todo = sum(counts[part] for part in pending)
    total = sum(counts.values())
    recovered = [f"removed {name}, left by a crash" for name in manifest.removed]
    if manifest.cut:
        recovered.append("cut an unfinished line off the manifest")
    if manifest.manifest.damaged:
        recovered.append(f"{manifest.manifest.damaged} lines of the manifest are damaged; their parts are done again")
    observer.begin(job.spec.name, total, total - todo, recovered)


def _work(job: Job, queue: _Queue, crash_log: CrashLog, watch: _Watch) -> None:
    failed_parts = 0
    tasks = _tasks(job, queue, crash_log)
    with closing(job.engine.run(job.spec, tasks, crash_log, watch.stopper)) as parts:
        for finished in parts:
            entry = watch.commit(job, queue, finished)
            if entry is None:
                continue
            failed_parts = failed_parts + 1 if set(entry.counts) == {"failed"} else -len(queue.pending)
            if failed_parts == MAX_FAILED_PARTS and watch.summary.parts < len(queue.pending):
                raise EnvironmentStop(_all_failed(entry))


def _try_again(job: Job, queue: _Queue, part: int, crash_log: CrashLog, watch: _Watch) -> None:
    """Try images of a part that an earlier run gave up once more, in a process of their own; if one lives, do the part again.

    It may have been a signal from outside that killed the process whenever it was at one of them.
    """
    [task] = job.backlog.tasks([part])
    refs = {ref.key: ref for ref in task.to_load}
    candidates = [image for image in killed_alone(queue.manifest.manifest.entries[part]) if image.key in refs]
    still: dict[str, str] = {}
    for image in candidates:
        log.info("%s: trying %s again, which %s", job.spec.name, image.key, image.error)
        if cause := try_alone(job.spec, task.only(refs[image.key]), RETRY_SECONDS):
            still[image.key] = f"{KILLED_ALONE} ({cause})"
        if watch.stopper.requested:
            return
    if len(still) < len(candidates):
        task = replace(task, skipped={**crash_log.poison_images(part), **still})
        with closing(job.engine.run(job.spec, iter([task]), crash_log, watch.stopper)) as parts:
            for finished in parts:
                watch.commit(job, queue, finished)


def _check_device(manifest: Manifest, device: str | None) -> None:
    """UsageError if other parts of the version were made on another kind of device: their rows differ in the last digits."""
    others = {
        known for entry in manifest.entries.values() if (known := entry.notes.get("device")) not in (None, device)
    }
    if device and others:
        raise UsageError(
            f"the other parts of this version were made on {' and '.join(sorted(others))}, this run works on {device}, and rows of "
            "different kinds of device differ in the last digits (some captions in their words). Go on with the device of "
            "before (--device, --gpu), use another work directory, or accept a mixture with --mix-devices"
        )


def _all_failed(entry: PartEntry) -> str:
    reason = next(image.error for image in entry.images if image.error)
    return (
        f"every image of the first {MAX_FAILED_PARTS} parts failed, so the run was stopped; the last reason was: {reason}\n"
        "fix the cause, then run again with --retry-failed (`pseudoris status --failed` lists them)"
    )


def _tasks(job: Job, queue: _Queue, crash_log: CrashLog) -> Iterator[PartTask]:
    """The pending tasks, less those that another writer has finished meanwhile."""
    for task in job.backlog.tasks(queue.pending):
        if queue.is_open(task.part):
            yield replace(task, skipped=crash_log.poison_images(task.part))


def _commit(manifest: ManifestWriter, finished: Finished, source: Source | None) -> PartEntry:
    task, result = finished.task, finished.result
    silent = [ref.key for ref in task.to_load if ref.key not in result.answers]
    assert not silent, f"the worker gave no answer for {silent[:10]}"
    promised = sum(rows for rows, _ in result.answers.values())
    assert all(len(values) == promised for values in result.columns.values()), "the worker's rows and answers differ"
    images = [_outcome(ref, finished, source) for ref in task.images]
    return manifest.commit(task.part, result.columns, images, task.upstream_digest, result.notes, finished.seconds)


def _outcome(ref: ImageRef, finished: Finished, source: Source | None) -> ImageOutcome:
    task, result = finished.task, finished.result
    rows, failure = result.answers.get(ref.key, (0, None))
    read = result.fingerprints.get(ref.key, Fingerprint())
    stamp = read.stamp
    if ref.key in task.skipped:
        failure = Failure(task.skipped[ref.key])
        stamp = source.stamp(ref.key) if source else None  # so that another image of this name is tried again
    status: ImageStatus = failure.status if failure else "done" if rows else "empty"
    error = failure.reason if failure else task.absent.get(ref.key)
    size, mtime = (stamp.size, stamp.mtime_ns) if stamp else (None, None)
    return ImageOutcome(ref.key, status, rows, error, size, mtime, read.sha256)
