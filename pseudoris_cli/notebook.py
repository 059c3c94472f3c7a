"""The stages from Python: what a notebook or a script needs, and what stays from release to release (docs/python.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.engine_inprocess import InProcess
from pseudoris_cli.execution.printed_progress import TellingObserver, Told, print_progress, say_nothing
from pseudoris_cli.execution.runner import Summary
from pseudoris_cli.execution.signals import graceful_stop
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.export.base import ImageMode, load_format
from pseudoris_cli.pipeline.chain import check_weights
from pseudoris_cli.pipeline.exporting import check_out, render_export
from pseudoris_cli.pipeline.running import run_command, run_masks
from pseudoris_cli.pipeline.session import Session
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.storage.plan import PLAN, pilot_plan
from pseudoris_cli.storage.remembered import recall
from pseudoris_cli.storage.stage_table import commands
from pseudoris_cli.storage.tables import read_table
from pseudoris_cli.storage.workspace import Workspace

__all__ = ["RunOptions", "Summary", "print_progress", "read_table", "run", "say_nothing"]


@dataclass(frozen=True)
class RunOptions:
    """What else may be said of a `run` from Python."""

    until: str = "filter"
    """The last stage: masks, captions, filter, or export, which with `out` also writes the files."""
    pilot: int | None = None
    """A trial on so many images, spread over the source."""
    device: str | None = None
    """cpu, mps or cuda:N; by default the first GPU, else the CPU."""
    out: str | Path | None = None
    """Folder for the exported files, with `until="export"`."""
    formats: tuple[str, ...] = ("refcoco",)
    """Formats of the export."""
    images: ImageMode = "none"
    """Image files in the export: none, copy or link."""
    retry_failed: bool = False
    """Redo parts in which images failed."""


def run(
    images: str | Path | None,
    work: str | Path,
    profile: str | None = None,
    settings: Mapping[str, Any] | None = None,
    options: RunOptions | None = None,
    progress: Told = print_progress,
) -> list[Summary]:
    """Run the stages on images, as `pseudoris run` does; what is done already is kept. docs/python.md shows it.

    `images` is a folder, list or annotation file, or None where the work directory `work` has its source; `settings` maps dotted
    names to values, on top of the profile and of what the work directory remembers; `progress(stage, done, total)` is told how
    it goes. Returns what each stage came to. Raises UsageError, MissingDependency or EnvironmentStop with a message that says what
    to do; Interrupted after Ctrl-C.
    """
    chain, options = commands(), options or RunOptions()
    if options.until not in chain:
        raise UsageError(f"until={options.until!r}: choose from {', '.join(chain)}")
    chosen = chain[: chain.index(options.until) + 1]
    workspace = Workspace(Path(work).expanduser())
    plan_name = pilot_plan(options.pilot) if options.pilot else PLAN
    resolved = {name: resolve(profile, flags=settings, base=recall(workspace, name, plan_name)) for name in chosen}
    sources.remember(workspace, sources.Wanted(os.path.expanduser(images) if images is not None else None))
    observer = TellingObserver(progress)
    with graceful_stop() as stopper:
        sessions = {
            name: Session(
                workspace=workspace,
                settings=one.settings,
                device=DeviceRequest(None, options.device),
                selection=Selection(retry_failed=options.retry_failed),
                engine=InProcess(one.settings.source.part_timeout, observer.within),
                observer=observer,
                stopper=stopper,
                plan_name=plan_name,
                profile=one.profile,
            )
            for name, one in resolved.items()
        }
        return _run(sessions, options)


def _run(sessions: dict[str, Session], options: RunOptions) -> list[Summary]:
    """The stages of each command, with its session."""
    export = sessions.get("export") if options.out else None
    out = Path(options.out or "").expanduser()
    if export:
        for name in options.formats:
            load_format(name)
        check_out(export, out, overwrite=False)
    if len(sessions) > 1:
        check_weights({name: session.settings for name, session in sessions.items()})
    summaries: list[Summary] = []
    for command, session in sessions.items():
        if not summaries:
            summaries.append(run_masks(session))
        else:
            summaries += run_command(session, command, summaries[-1].version)
    if export:
        render_export(export, out, options.formats, options.images, False, summaries[-1].version)
    return summaries
