"""From the export index to files that training code reads."""

from __future__ import annotations

from pathlib import Path

from pseudoris_cli import __version__
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import destination, render
from pseudoris_cli.export.base import ImageMode
from pseudoris_cli.pipeline.session import Session
from pseudoris_cli.storage import files
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.weights.provenance import same_model, weights_provenance


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
