"""The way through the house: opens versions, joins stages to their upstream, and hands jobs to the runner."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from pseudoris_cli import __version__
from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution import runner
from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.engine import Engine
from pseudoris_cli.execution.runner import Job, Observer, Summary
from pseudoris_cli.execution.signals import Stopper
from pseudoris_cli.execution.tasks import Selection, StageSpec
from pseudoris_cli.export import destination, render
from pseudoris_cli.export.base import ImageMode
from pseudoris_cli.records import ImageRef
from pseudoris_cli.settings.models import CaptionSettings, Settings
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.sources.base import Source
from pseudoris_cli.stages import captions, export_index, filter, masks, scores
from pseudoris_cli.storage import files
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.workspace import Artifact, Workspace
from pseudoris_cli.weights.provenance import origins

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

    @property
    def source(self) -> Source:
        """The source that the work directory remembers."""
        description = self.workspace.source()
        if description is None:
            raise UsageError(f"{self.workspace.root} has no source yet; begin with `pseudoris masks --images DIR`")
        return sources.open_source(description)

    def on_images(self, max_pixels: int) -> dict[str, Any]:
        """What every stage that runs networks on images is given."""
        reading = self.settings.source
        return {
            "numerics": self.settings.numerics,
            "device": self.device,
            "source": self.source,
            "max_pixels": max_pixels,
            "decode_threads": reading.decode_threads,
            "decode_ahead": reading.decode_ahead,
        }


def run_masks(session: Session, limit: int | None = None, pilot: int | None = None) -> Summary:
    """Stage 1, after planning the images of the source that are not planned yet."""
    settings = session.settings
    description = session.workspace.source()
    source = session.source
    plan_name = f"plan-pilot-{pilot}.jsonl" if pilot else "plan.jsonl"
    content = masks.version_content(settings.masks, settings.numerics)
    plan = session.workspace.plan(plan_name)
    if not pilot:
        shard = session.selection.shard
        plan.extend(
            _images(session, source, description), settings.source.part_size, limit, leader=not shard or shard[0] == 0
        )
    elif plan.image_count < pilot:
        plan.extend(spread(list(source.images()), pilot), settings.source.part_size, pilot)
    if not len(plan):
        raise UsageError("the source has no images any more; did they move? (--image-root)")
    artifact = _open(session, "masks", content, None, plan_name)
    spec = masks.Spec(settings=settings.masks, **session.on_images(settings.masks.max_pixels))
    return _run(session, artifact, spec, ())


def _images(session: Session, source: Source, description: dict[str, Any] | None) -> Iterator[ImageRef]:
    """The images to plan, listed while nobody else plans. UsageError if the work directory has got another source meanwhile."""
    if session.workspace.source() != description:
        raise UsageError(f"another command has just given {session.workspace.root} another source; look which is right")
    yield from source.images()


def run_captions(session: Session, version: str | None = None) -> Summary:
    """Stage 2 on a masks version (default: the current one)."""
    settings = cast(CaptionSettings, session.settings.captions)
    numerics = session.settings.numerics
    upstream = session.workspace.latest("masks", version)
    artifact = _open(session, "captions", captions.version_content(settings, numerics), upstream)
    limit = _max_pixels(upstream)
    spec = captions.Spec(settings=settings, **session.on_images(limit))
    return _run(session, artifact, spec, ("masks",))


def run_scores(session: Session, version: str | None = None) -> Summary:
    """Stage 3a on a captions version (default: the current one)."""
    settings = session.settings
    upstream = session.workspace.latest("captions", version)
    artifact = _open(session, "scores", scores.version_content(settings.filter, settings.numerics), upstream)
    limit = _max_pixels(session.workspace.chain(upstream)["masks"])
    spec = scores.Spec(settings=settings.filter, **session.on_images(limit))
    return _run(session, artifact, spec, ("masks", "captions"))


def run_filter(session: Session) -> Summary:
    """Stage 3b on the scores just made."""
    upstream = session.workspace.latest("scores")
    artifact = _open(session, "filter", filter.version_content(session.settings.filter), upstream)
    return _run(session, artifact, filter.Spec(session.settings.filter), ("captions", "scores"))


def run_export_index(session: Session, version: str | None = None) -> Summary:
    """The index that every export format is rendered from, on a filter version (default: the current one)."""
    upstream = session.workspace.latest("filter", version)
    artifact = _open(session, "export", export_index.version_content(session.settings.export), upstream)
    return _run(session, artifact, export_index.Spec(session.settings.export), ("filter",))


def check_weights(settings: Settings) -> None:
    """MissingDependency (exit 3) if a checkpoint of any stage is not here: asked before the first stage has run for hours."""
    masks.version_content(settings.masks, settings.numerics)
    captions.version_content(cast(CaptionSettings, settings.captions), settings.numerics)
    scores.version_content(settings.filter, settings.numerics)


def check_out(session: Session, folder: Path, overwrite: bool) -> None:
    """UsageError (exit 2) if an export may not go to `folder`: asked before the work begins."""
    source = session.workspace.source() or {}
    images = [Path(source[name]) for name in ("root", "image_root") if source.get(name)]
    kept = [("the work directory", session.workspace.root), *(("the images", path) for path in images)]
    destination.check(folder, overwrite, [(what, path) for what, path in kept if path.is_dir()])


def render_export(session: Session, folder: Path, formats: tuple[str, ...], images: ImageMode, overwrite: bool) -> bool:
    """Render formats from the index just made; False if `folder` holds exactly that already.

    UsageError (exit 2) if the index lacks parts, unless that is allowed; they are then left out.
    """
    index = session.workspace.latest("export")
    chain = session.workspace.chain(index)
    settings = session.settings.export
    plan = session.workspace.plan(index.plan_name)
    manifests = {stage: made.manifest() for stage, made in chain.items()}
    lacking = _keep_whole(plan, manifests)
    if lacking and not session.selection.allow_partial:
        raise UsageError(
            f"the export index is incomplete: {lacking} of {len(plan)} parts are missing; run `pseudoris export` without "
            "--shard, or take what is there with --allow-partial"
        )
    provenance = {
        "pseudoris": __version__,
        "versions": {stage: made.version for stage, made in chain.items()},
        "settings": {stage: made.header["settings"] for stage, made in chain.items()},
        "weights": origins({stage: chain[stage].header for stage in ("masks", "captions", "scores")}),
        "images": {stage: manifest.counts() for stage, manifest in manifests.items()},
        "partial": lacking > 0,
    }
    job = render.Rendering(
        plan=plan,
        manifests=manifests,
        source=session.source,
        formats=formats,
        dataset=settings.dataset,
        split_by=settings.split_by,
        split=settings.split,
        images=images,
        provenance=provenance,
    )
    with files.explained(folder):
        return render.render(job, folder, overwrite)


def _keep_whole(plan: Plan, manifests: dict[str, Manifest]) -> int:
    """Drop the parts whose index does not hold together with the stages before; returns how many that were."""
    lineage = Lineage(manifests)
    lacking = {part.part for part in plan.parts if lineage.entry("export", part.part) is None}
    for manifest in manifests.values():
        manifest.entries = {part: entry for part, entry in manifest.entries.items() if part not in lacking}
    return len(lacking)


def spread(images: list[ImageRef], count: int) -> list[ImageRef]:
    """`count` images at even distances over the source."""
    step = max(1.0, len(images) / count)
    return [images[int(number * step)] for number in range(min(count, len(images)))]


def _open(
    session: Session, stage: str, content: dict[str, Any], upstream: Artifact | None, plan_name: str | None = None
) -> Artifact:
    """The version of a stage: its content decides the name, the rest is kept for the record."""
    content = {
        "schema": SCHEMA_VERSION,
        "upstream": upstream.version if upstream else None,
        "plan": upstream.plan_name if upstream else plan_name,
        **content,
    }
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pseudoris": __version__,
        "python": platform.python_version(),
        "packages": {name: _package_version(name) for name in _PACKAGES},
        "resolved": session.settings.model_dump(mode="json"),
    }
    return session.workspace.open_version(stage, content, record)


def _run(session: Session, artifact: Artifact, spec: StageSpec, reads: tuple[str, ...]) -> Summary:
    chain = session.workspace.chain(artifact)
    backlog = Backlog(
        stage=artifact.stage,
        plan=session.workspace.plan(artifact.plan_name),
        before={stage: made.manifest() for stage, made in chain.items() if stage != artifact.stage},
        reads=reads,
        source=spec.source,
    )
    header = {key: artifact.header[key] for key in artifact.header if key != "resolved"}
    job = Job(artifact, spec, backlog, session.selection, session.engine, header)
    return runner.run(job, session.observer, session.stopper)


def _max_pixels(upstream: Artifact) -> int:
    return upstream.header["settings"]["max_pixels"]


def _package_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
