"""The chain of stages at work: opens versions, joins each stage to its upstream, and hands jobs to the runner."""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from pseudoris_cli import __version__
from pseudoris_cli.backends import registry as backends
from pseudoris_cli.errors import EnvironmentStop, MissingDependency, PseudorisError, UsageError
from pseudoris_cli.execution import runner
from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.engine import Engine
from pseudoris_cli.execution.runner import Job, Observer, Summary
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import ImageReading, NetworkContext, Selection
from pseudoris_cli.export import destination, render
from pseudoris_cli.export.base import ImageMode
from pseudoris_cli.export.choice import Choice
from pseudoris_cli.records import ImageRef
from pseudoris_cli.settings.models import Settings
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.base import Source
from pseudoris_cli.storage import files, left_out
from pseudoris_cli.storage.copies import count_copies
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import Manifest, writer_name
from pseudoris_cli.storage.plan import PLAN, Plan, images_of
from pseudoris_cli.storage.remembered import remember
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.stage_table import FIRST, STAGES, Stage, commands, stage, stages_of, upstream_of
from pseudoris_cli.storage.workspace import Artifact, Workspace, fingerprint
from pseudoris_cli.weights.provenance import same_model, weights_provenance

log = logging.getLogger("pseudoris")
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "segment-anything", "spacy", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True)
class Session:
    """One command at work: where, with which settings, on what, watched by whom."""

    workspace: Workspace
    settings: Settings
    device: DeviceRequest
    selection: Selection
    engine: Engine
    observer: Observer
    stopper: Stopper
    plan_name: str = PLAN
    """Whose current versions are gone on with: those of the whole source, or those of a pilot."""
    profile: str | None = None
    """The profile that the settings start from; the nearest one is noted in the work directory where none is named."""
    choice: Choice = field(default_factory=Choice)
    """What of the kept expressions an export takes."""

    @property
    def source(self) -> Source:
        """The source that the work directory remembers."""
        return sources.source_of(self.workspace)


# --- stages ---------------------------------------------------------------------------------------------------------


def module_of(row: Stage) -> Any:
    """The module of a stage (`stages/__init__.py` says what it defines)."""
    return import_module(f"pseudoris_cli.stages.{row.file}")


def wanted(settings: Settings) -> list[Stage]:
    """The stages of a run with these settings, in order."""
    return [row for row in STAGES if not row.optional or module_of(row).is_wanted(settings)]


def versions(settings: Settings | Mapping[str, Settings], plan_name: str = PLAN) -> dict[str, str]:
    """The version of every stage that a run with these settings makes, each from the one before; nothing is written.

    Settings may be given for each command.
    MissingDependency (exit 3) if a checkpoint is not here.
    """
    found: dict[str, str] = {}
    upstream = None
    given = dict.fromkeys(commands(), settings) if isinstance(settings, Settings) else settings
    for row in (row for row in STAGES if row.command in given and row in wanted(given[row.command])):
        content = _content(given[row.command], row, upstream, plan_name)
        upstream = found[row.name] = fingerprint(content)
    return found


def run_masks(session: Session, limit: int | None = None) -> Summary:
    """The first stage, after planning the images of the source that are not planned yet."""
    content = _content(
        session.settings, stage(FIRST), None, session.plan_name
    )  # says what is missing before images are listed
    shard = session.selection.shard
    extend_plan(session.workspace, session.settings, session.plan_name, limit, leader=not shard or shard[0] == 0)
    return _run_stage(session, stage(FIRST), None, content)


def extend_plan(
    workspace: Workspace, settings: Settings, plan_name: str = PLAN, limit: int | None = None, leader: bool = True
) -> tuple[Plan, int]:
    """Plan the images of the source that are not planned yet: the plan, and how many are new. UsageError if there are none.

    No network is loaded. Of many processes that begin together only the leader lists the source.
    """
    description, source = workspace.source(), sources.source_of(workspace)
    plan, pilot, size = workspace.plan(plan_name), images_of(plan_name), settings.source.part_size
    new = 0
    if pilot is None:
        new = plan.extend(_images(workspace, source, description), size, limit, leader)
    elif plan.image_count < pilot:
        new = plan.extend(spread(list(_images(workspace, source, description)), pilot), size, pilot)
    if not len(plan):
        raise UsageError("the source has no images any more; did they move? (--image-root)")
    return plan, new


def _images(workspace: Workspace, source: Source, description: dict[str, Any] | None) -> Iterator[ImageRef]:
    """The images to plan, listed while nobody else plans. UsageError if the work directory has got another source meanwhile.

    What the source passed over is remembered, once it was listed to the end.
    """
    if workspace.source() != description:
        raise UsageError(f"another command has just given {workspace.root} another source; look which is right")
    yield from source.images()
    passed_over = getattr(source, "left_out", None)
    if passed_over and passed_over.complete:
        left_out.save(workspace.root, passed_over.kinds)


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
        content = _content(session.settings, row, upstream.version, upstream.plan_name)
        summaries.append(_run_stage(session, row, upstream, content))
    return summaries


def _check_upstream(session: Session, command: str, upstream: Artifact) -> None:
    """Let every stage of a command say what of its settings does not fit the versions before, ahead of all work."""
    made = {name: artifact.version for name, artifact in session.workspace.chain(upstream).items()}
    for row in stages_of(command):
        if check := getattr(module_of(row), "check_upstream", None):
            check(session.settings, made)


def commands_between(first: str, last: str) -> list[str]:
    """The commands after `first` and before `last`, in the order of the chain."""
    chain = commands()
    return list(chain[chain.index(first) + 1 : chain.index(last)])


def check_weights(settings: Settings | Mapping[str, Settings]) -> None:
    """MissingDependency (exit 3) if a checkpoint of any stage is not here: asked before the first stage has run for hours.

    A server that does not answer yet is only warned of: it may not be needed, or not be up before the masks are made.
    """
    try:
        versions(settings)
    except MissingDependency as error:
        raise MissingDependency(
            f"{error}\nall that these settings need, at once:  pseudoris weights fetch --profile NAME; what is missing:  "
            "pseudoris doctor --profile NAME"
        ) from None
    given = settings if isinstance(settings, Mapping) else dict.fromkeys(("captions", "filter"), settings)
    for what, section in (
        ("captions will need their server", given["captions"].captions),
        ("the judge will need its server", given["filter"].filter.judge),
    ):
        try:
            backends.check_reachable(section)
        except PseudorisError as error:
            log.warning("%s, which does not answer now: %s", what, error)


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


def _remark_on_copies(masks: Artifact) -> list[str]:
    found = count_copies(masks.manifest())
    return [f"{found:,} files hold the image of another file; an export keeps them in one split"] if found else []


def next_command(name: str) -> str:
    """The command that works on what a stage made."""
    chain = commands()
    return chain[min(chain.index(stage(name).command) + 1, len(chain) - 1)]


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


def _content(settings: Settings, row: Stage, upstream: str | None, plan_name: str) -> dict[str, Any]:
    """All that decides the results of a stage; its hash is the version."""
    own = module_of(row).version_content(settings)
    return {"schema": SCHEMA_VERSION, "upstream": upstream, "plan": plan_name, **own}


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


def spread(images: list[ImageRef], count: int) -> list[ImageRef]:
    """`count` images at even distances over the source."""
    step = max(1.0, len(images) / count)
    return [images[int(number * step)] for number in range(min(count, len(images)))]


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- export ---------------------------------------------------------------------------------------------------------


def check_out(session: Session, folder: Path, overwrite: bool, links: bool = False) -> None:
    """UsageError (exit 2) if an export may not or cannot go to `folder` (`links`: with links to images): asked before the work."""
    source = session.workspace.source() or {}
    images = [Path(source[name]) for name in ("root", "image_root") if source.get(name)]
    kept = [("the work directory", session.workspace.root), *(("the images", path) for path in images)]
    destination.check(
        folder, overwrite, [destination.ProtectedFolder(what, path) for what, path in kept if path.is_dir()]
    )
    destination.check_abilities(folder, links)


def render_export(
    session: Session,
    folder: Path,
    formats: tuple[str, ...],
    images: ImageMode,
    overwrite: bool,
    version: str | None = None,
) -> bool:
    """Render formats from an index (default: the current one); False if `folder` holds exactly that already.

    UsageError (exit 2) if the index lacks parts, unless that is allowed; they are then left out.
    """
    index = session.workspace.latest("export", version, session.plan_name)
    chain = session.workspace.chain(index)
    settings = session.settings.export
    plan = session.workspace.plan(index.plan_name)
    manifests = {stage: made.manifest() for stage, made in chain.items()}
    lacking = _keep_intact(plan, manifests)
    if lacking and not session.selection.allow_partial:
        raise UsageError(
            f"the export index is incomplete: {lacking} of {len(plan)} parts are missing; run `pseudoris export` without "
            "--shard, or take what is there with --allow-partial"
        )
    provenance = {
        "pseudoris": __version__,
        "versions": {stage: made.version for stage, made in chain.items()},
        "settings": {stage: made.header["settings"] for stage, made in chain.items()},
        "weights": weights_provenance(
            {name: made.header for name, made in chain.items() if made.header.get("checkpoints")}
        ),
        "images": {stage: manifest.counts() for stage, manifest in manifests.items()},
        "partial": lacking > 0,
    }
    if warning := same_model({name: made.header for name, made in chain.items()}):
        provenance["listener_warning"] = warning
    job = render.ExportJob(
        plan=plan,
        manifests=manifests,
        source=session.source,
        formats=formats,
        dataset=settings.dataset,
        split_by=settings.split_by,
        split=settings.split,
        images=images,
        provenance=provenance,
        segmentation=settings.segmentation,
        sentences=settings.sentences,
        shard_mb=settings.shard_mb,
        choice=session.choice,
    )
    with files.os_errors_as_stop(folder):
        return render.render_export(job, folder, overwrite)


def _keep_intact(plan: Plan, manifests: dict[str, Manifest]) -> int:
    """Drop the parts whose index does not hold together with the stages before; returns how many that were."""
    lineage = Lineage(manifests)
    lacking = {part.part for part in plan.parts if lineage.entry("export", part.part) is None}
    for manifest in manifests.values():
        manifest.entries = {part: entry for part, entry in manifest.entries.items() if part not in lacking}
    return len(lacking)
