"""From options to a session, and from a finished stage to lines on stdout and an exit code."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudoris_cli.cli.console import ProgressObserver, configure_logging, note, out, print_json
from pseudoris_cli.cli.cost_table import print_cost, total_cost
from pseudoris_cli.cli.filter_table import print_filter
from pseudoris_cli.cli.options import SourceOptions, StageOptions
from pseudoris_cli.errors import SomeImagesFailed, UsageError
from pseudoris_cli.execution.signals import graceful_stop
from pseudoris_cli.export import polygons
from pseudoris_cli.settings.resolve import Resolved
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.detect import authors_source
from pseudoris_cli.storage import left_out
from pseudoris_cli.storage.stage_table import FIRST, STAGES

if TYPE_CHECKING:
    from pseudoris_cli.execution.engine import Engine
    from pseudoris_cli.execution.runner import Summary
    from pseudoris_cli.pipeline.session import Session
    from pseudoris_cli.storage.workspace import Workspace


@contextmanager
def open_session(options: StageOptions, resolved: Resolved) -> Iterator[Session]:
    """A session in the work directory, with signals handled while it lasts."""
    from pseudoris_cli.pipeline.session import Session

    configure_logging(options.quiet)
    observer = ProgressObserver(options.quiet)
    engine = _engine(options, resolved, observer)
    with graceful_stop() as stopper:
        try:
            yield Session(
                workspace=options.workspace,
                settings=resolved.settings,
                device=options.device_request,
                selection=options.selection,
                engine=engine,
                observer=observer,
                stopper=stopper,
                plan_name=options.plan_name,
                profile=resolved.profile,
            )
        finally:
            with stopper.shielded():
                engine.close()


def _engine(options: StageOptions, resolved: Resolved, observer: ProgressObserver) -> Engine:
    limit = resolved.settings.source.part_timeout
    gpus = options.gpus
    if len(gpus) > 1 or options.workers or options.ray_address:
        from pseudoris_cli.execution.ray.cluster import RayCluster
        from pseudoris_cli.execution.ray.engine import RayEngine

        if gpus and options.workers not in (None, len(gpus)):
            raise UsageError(
                f"--workers {options.workers} does not fit --gpu {options.gpu}: one worker per GPU; leave --workers out"
            )
        if (options.ray_address and gpus) or ":" in (options.device or ""):
            raise UsageError(
                "Ray deals out the GPUs: give --workers N, or on this machine --gpu 0,1, and no single device"
            )
        return RayEngine(RayCluster(options.workers, tuple(gpus), options.ray_address), limit)
    from pseudoris_cli.execution.engine_inprocess import InProcess

    return InProcess(limit, observer.within)


def remember_source(workspace: Workspace, wanted: SourceOptions, quiet: bool = False) -> None:
    """Fix the source of a work directory, or check that it is still the same. UsageError (exit 2) if it is another."""
    images: Path | str | None = wanted.images
    if images is None and workspace.source() is None and (images := authors_source(Path.cwd())) and not quiet:
        note(f"taking the images of {images}, found in a directory laid out like the authors'")
    sources.remember(workspace, sources.Wanted(images, wanted.image_root, wanted.choices, wanted.source_kind))


def report(
    options: StageOptions, summaries: Sequence[Summary], extra: dict[str, Any] | None = None, *following: str
) -> None:
    """Print what the stages came to, and of `extra` the filter's figures, the costs by stage, and where an export and a report are.

    `following` are the commands that make sense next; they go to stderr. SomeImagesFailed (exit 4) if images failed.
    """
    extra = dict(extra or {})
    costs = extra.pop("costs", {})
    listed = options.workspace.root if any(summary.stage == FIRST for summary in summaries) else None
    if options.json_output:
        passed_over = {"left_out": left_out.load(listed)} if listed else {}
        cost = {"cost": total_cost(costs)} if costs else {}
        print_json({"stages": [asdict(summary) for summary in summaries], **passed_over, **extra, **cost})
    else:
        for summary in summaries:
            out.print(describe(summary), markup=False)
            for line in summary.remarks + [f"left out: {n:,} {what}" for what, n in summary.left_out.items()]:
                out.print(f"  {line}", markup=False)
            if summary.stage in costs:
                print_cost(costs[summary.stage], summary.stage)
        for line in left_out.described(listed) if listed else ():
            note(line)
        if extra.get("filter"):
            print_filter(extra["filter"])
        if "out" in extra:
            state = "written to" if extra["rendered"] else "up to date in"
            out.print(f"{', '.join(extra['formats'])} {state} {extra['out']}", markup=False)
        if extra.get("polygons"):
            out.print(polygons.describe(extra["polygons"]), markup=False)
        if "report" in extra:
            out.print(f"report {extra['report']}", markup=False)
    if not options.quiet and not options.json_output:
        for number, command in enumerate(following):
            note(f"{'then' if number else 'next'}: {next_command(options, command)}")
    failed = {s.stage: s.total_counts.get("failed", 0) for s in summaries if s.total_counts.get("failed")}
    if failed:
        counts = ", ".join(f"{count} in {stage}" for stage, count in failed.items())
        raise SomeImagesFailed(f"finished, but some images failed ({counts}); `pseudoris status --failed` says why")
    first = summaries[0].total_counts
    if first.get("gone") and first["gone"] == sum(first.values()):
        raise SomeImagesFailed(
            f"finished, but none of the {first['gone']:,} images was there; did they move? (--image-root)"
        )


def next_command(options: StageOptions, command: str) -> str:
    """A command as it must be typed to go on with the same work directory and settings."""
    stages = {row.command for row in STAGES}
    words = ["pseudoris", *command.split()]
    if options.work:
        words += ["--work", str(options.work)]
    if words[1] in stages:
        words += ["--profile", options.profile] if options.profile else []
        words += ["--config", str(options.config)] if options.config else []
        words += [part for assignment in options.assignments for part in ("--set", assignment)]
        words += ["--pilot", str(options.pilot)] if options.pilot else []
        words += ["--gpu", options.gpu] if options.gpu else ["--device", options.device] if options.device else []
    return shlex.join(words)


def describe(summary: Summary) -> str:
    """One line about a stage."""
    counts = summary.total_counts
    images = ", ".join(f"{counts[status]:,} {status}" for status in counts if counts[status]) or "no images"
    if summary.nothing_to_do:
        return f"{summary.stage} {summary.version}: nothing to do ({images})"
    lacking = f"; {summary.lacking} parts of the stage before are missing" if summary.lacking else ""
    return f"{summary.stage} {summary.version}: {summary.rows:,} rows in {summary.seconds:.1f} s; images: {images}{lacking}"
