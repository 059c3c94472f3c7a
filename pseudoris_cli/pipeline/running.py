"""Runs stages: opens their versions, joins each to its upstream, and hands jobs to the runner."""

from __future__ import annotations

import logging
import platform
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from pseudoris_cli import __version__
from pseudoris_cli.errors import EnvironmentStop, MissingDependency, UsageError
from pseudoris_cli.execution import runner
from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.runner import Job, Summary
from pseudoris_cli.execution.tasks import ImageReading, NetworkContext
from pseudoris_cli.pipeline.chain import content_of, module_of, next_command, wanted
from pseudoris_cli.pipeline.planning import extend_plan
from pseudoris_cli.pipeline.session import Session
from pseudoris_cli.storage.copies import count_copies
from pseudoris_cli.storage.manifest import writer_name
from pseudoris_cli.storage.remembered import remember
from pseudoris_cli.storage.stage_table import FIRST, Stage, stage, stages_of, upstream_of
from pseudoris_cli.storage.workspace import Artifact, Workspace

log = logging.getLogger("pseudoris")
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "segment-anything", "spacy", "numpy", "pillow", "pyarrow")


def run_masks(session: Session, limit: int | None = None) -> Summary:
    """The first stage, after planning the images of the source that are not planned yet."""
    content = content_of(
        session.settings, stage(FIRST), None, session.plan_name
    )  # says what is missing before images are listed
    shard = session.selection.shard
    extend_plan(session.workspace, session.settings, session.plan_name, limit, leader=not shard or shard[0] == 0)
    return _run_stage(session, stage(FIRST), None, content)


def run_command(session: Session, command: str, version: str | None = None) -> list[Summary]:
    """The stages of a command other than `masks`, one after the other.

    `version` is that of the stage before the first of them (default: the current one).
    """
    summaries: list[Summary] = []
    workspace = session.workspace
    chain = wanted(session.settings)
    for row in (row for row in chain if row in stages_of(command)):
        before = upstream_of(row.name, [other.name for other in chain])
        assert before is not None, "the first stage has a function of its own"
        just_made = next((one.version for one in summaries if one.stage == before), None)
        upstream = workspace.latest(before, just_made or (None if summaries else version), session.plan_name)
        if not summaries:
            _check_upstream(session, command, upstream)
            if not version:
                _tell_what_is_taken(workspace, upstream, command)
        content = content_of(session.settings, row, upstream.version, upstream.plan_name)
        summaries.append(_run_stage(session, row, upstream, content))
    return summaries


def _check_upstream(session: Session, command: str, upstream: Artifact) -> None:
    """Let every stage of a command say what of its settings does not fit the versions before, ahead of all work."""
    made = {name: artifact.version for name, artifact in session.workspace.chain(upstream).items()}
    for row in stages_of(command):
        if check := getattr(module_of(row), "check_upstream", None):
            check(session.settings, made)


def _tell_what_is_taken(workspace: Workspace, upstream: Artifact, command: str) -> None:
    """Say which version of the stage before is taken where it may not be the one that the user has in mind."""
    stage, plan = upstream.stage, upstream.plan_name
    behind = workspace.unfinished(stage, plan)
    if behind and behind != upstream.version:
        log.info(
            "%s: taking %s %s; %s was begun since and is unfinished (--from %s takes what it has)",
            command, stage, upstream.version, behind, behind,
        )  # fmt: skip
    for before, made in workspace.chain(upstream).items():
        current = workspace.current(before, plan)
        if before != stage and current and current != made.version:
            log.info(
                "%s: %s %s was made from %s %s; %s %s is current, and `pseudoris %s` makes the stages after it anew",
                command, stage, upstream.version, before, made.version, before, current,
                next_command(before),
            )  # fmt: skip


def _run_stage(session: Session, row: Stage, upstream: Artifact | None, content: dict[str, Any]) -> Summary:
    """Run one stage. What refuses it is asked before its version is made, or takes the version back: nothing is left of it."""
    workspace = session.workspace
    chain = workspace.chain(upstream) if upstream else {}
    first = chain[FIRST].header if chain else content
    spec = module_of(row).make_spec(session.settings, lambda: _network_context(session, first))
    plan = workspace.plan(content["plan"])
    before = {name: made.manifest() for name, made in chain.items()}
    backlog = Backlog(
        stage=row.name,
        plan=plan,
        before=before,
        reads=tuple(name for name in row.reads if name in before),
        source=spec.source,
        starts=spec.running_totals(plan, before),
    )
    backlog.check_upstream(session.selection)
    check = getattr(module_of(row), "check", None)
    remarks = check(session.settings, plan) if check else []
    begun = workspace.begun(row.name, plan.path.name)
    artifact = workspace.open_version(row.name, content, _record(session, row, upstream))
    header = {key: artifact.header[key] for key in artifact.header if key != "resolved"}
    spec = spec.placed(artifact.folder, writer_name(session.selection.shard))
    job = Job(artifact, spec, backlog, session.selection, session.engine, header)
    try:
        summary = runner.run(job, session.observer, session.stopper)
        summary.remarks = remarks + (_remark_on_copies(artifact) if row.name == FIRST and summary.parts else [])
        return summary
    except (UsageError, MissingDependency):
        with suppress(EnvironmentStop):  # another shard is at work in it
            workspace.discard(artifact, begun)
        raise
    finally:
        if artifact.folder.exists() and (
            workspace.settle(artifact) or not workspace.current(row.name, artifact.plan_name)
        ):
            remember(workspace, row.command, artifact.plan_name, session.profile, session.settings)


def _record(session: Session, row: Stage, upstream: Artifact | None) -> dict[str, Any]:
    """What is kept with a version and does not decide its name."""
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pseudoris": __version__,
        "python": platform.python_version(),
        "packages": {name: _package_version(name) for name in _PACKAGES},
        "resolved": session.settings.model_dump(mode="json"),
    }
    if upstream and upstream.stage != upstream_of(row.name):
        record["upstream_stage"] = upstream.stage
    return record


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _network_context(session: Session, first: dict[str, Any]) -> NetworkContext:
    """What a stage that runs networks on images is given; `first`: the header of the first stage that it comes from."""
    reading = session.settings.source
    return NetworkContext(
        numerics=session.settings.numerics,
        device=session.device,
        reading=ImageReading(
            source=session.source,
            max_pixels=first["settings"]["max_pixels"],
            decode_threads=reading.decode_threads,
            decode_ahead=reading.decode_ahead,
        ),
    )


def _remark_on_copies(masks: Artifact) -> list[str]:
    found = count_copies(masks.manifest())
    return [f"{found:,} files hold the image of another file; an export keeps them in one split"] if found else []
