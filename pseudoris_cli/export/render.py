"""The second half of the export: from the index to the files of each format. The folder is written atomically."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.image_upright import is_upright, upright
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base, destination
from pseudoris_cli.export.base import ExportContext, ExportImage, ImageMode
from pseudoris_cli.export.choice import Choice
from pseudoris_cli.export.image_stream import Artifacts, stream_images
from pseudoris_cli.export.splits import Splits
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import SegmentationStyle, SentenceChoice
from pseudoris_cli.sources.base import FileReader, Source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan

REVISION = 3
"""Increase it when the same artifacts give other files than before, so that existing exports are made again."""


@dataclass(frozen=True)
class ExportJob:
    """What to export: which parts, in which formats, under which names.

    `manifests` are those of the stages `masks`, `filter` and `export`, and of `judge` where there is one; `split` is the text of
    `--split`.
    """

    plan: Plan
    manifests: dict[str, Manifest]
    source: Source
    formats: tuple[str, ...]
    dataset: str
    split_by: str
    split: str
    images: ImageMode
    provenance: dict[str, Any]
    segmentation: SegmentationStyle = "polygon"
    sentences: SentenceChoice = "best"
    shard_mb: int = 512
    choice: Choice = field(default_factory=Choice)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the files: equal identities give equal bytes."""
        digest = hashlib.sha256()
        formats = [base.load_format(name) for name in self.formats]
        judged = base.wants_references(formats) and "judge" in self.manifests
        for stage in ("masks", "filter", "export", *(("judge",) if judged else ())):
            for _, entry in sorted(self.manifests[stage].entries.items()):
                digest.update(entry.file.sha256.encode())
        plug_ins = {name: owner for name in self.formats if (owner := plugins.identity(plugins.FORMATS, name))}
        more: dict[str, Any] = {"plug_ins": plug_ins} if plug_ins else {}
        options = {
            "segmentation": "rle",
            "sentences": "best",
            "shard_mb": 512,
        }  # what is as it was is not named: exports stay
        followed = {option for one in formats for option in getattr(one, "OPTIONS", ())}
        more |= {name: value for name in sorted(followed) if (value := getattr(self, name)) != options[name]}
        if lists := Splits(self.split).digests():
            more["split_lists"] = lists
        return (
            more
            | self.choice.identity()
            | {
                "formats": list(self.formats),
                "dataset": self.dataset,
                "split_by": self.split_by,
                "images": self.images,
                "revision": REVISION,
                "artifacts": digest.hexdigest(),
            }
        )


def render_export(job: ExportJob, out: Path, overwrite: bool) -> bool:
    """Write all formats below `out`; returns False, and writes nothing, if `out` holds exactly this export already.

    The folder is written beside `out` and renamed, so a crash leaves the old state. UsageError (exit 2) if `out` holds
    something that no export made, unless `overwrite`.
    """
    formats = [base.load_format(name) for name in job.formats]
    _finish_publishing(out)
    if destination.export_identity(out) == job.identity:
        return False
    destination.check(out, overwrite)
    destination.check_abilities(out, job.images == "link")
    staging = out / destination.STAGING if destination.is_within(out) else out.with_name(f".{out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        context = ExportContext(
            dataset=job.dataset,
            split_by=job.split_by,
            images=job.images,
            read_image=lambda key: upright(job.source.read(key)),
            locate_image=lambda key: _locate(job.source, key),
            provenance=job.provenance,
            segmentation=job.segmentation,
            sentences=job.sentences,
            shard_bytes=job.shard_mb << 20,
        )
        images = stream(job, base.wants_candidates(formats), base.wants_references(formats))
        base.write_formats(formats, images, context, staging)
        figures = context.polygons.figures()
        made = {"export": job.identity, **job.provenance} | ({"polygons": figures} if figures else {})
        (staging / destination.MARKER).write_text(json.dumps(made, indent=2), encoding="utf-8")
        _publish(staging, out)
    except BaseException:
        if not any(
            (out / name).is_dir() for name in (destination.REPLACING, destination.REPLACED)
        ):  # else it can be finished
            shutil.rmtree(staging, ignore_errors=True)
        raise
    return True


def stream(job: ExportJob, candidates: bool, references: bool = False) -> Iterator[ExportImage]:
    """The images of an export (`image_stream.stream_images`)."""
    artifacts = Artifacts(job.plan, job.manifests, candidates, references)
    return job.choice.of(stream_images(artifacts, Splits(job.split), job.choice))


def polygon_figures(out: Path) -> dict[str, Any] | None:
    """How exactly the polygons of the export in `out` give back their masks (`Polygons.figures`); None where it has none."""
    made: dict[str, Any] = json.loads((out / destination.MARKER).read_text(encoding="utf-8"))
    return made.get("polygons")


def _locate(source: Source, key: str) -> Path | None:
    """The file of an image, if it can be linked to as it is; None if it must be rotated first."""
    if not isinstance(source, FileReader):
        raise UsageError(
            "this source stores its images inside another file, so they cannot be linked. Use --images copy or none"
        )
    path = source.path(key)
    with path.open("rb") as file:
        return path if is_upright(file) else None


def _publish(staging: Path, out: Path) -> None:
    """Replace `out` by the finished folder, or what it holds by what the finished folder holds."""
    files.sync_tree(staging)
    if staging.parent == out:
        _publish_within(out)
        return
    if out.exists() or out.is_symlink():
        files.publish(out, _backup_of(out))
    files.publish(staging, out)
    files.sync_folder(out.parent)
    _remove(_backup_of(out))


def _publish_within(out: Path) -> None:
    """Move the old files aside, then the new ones in, the marker last; each half can be found and finished after a crash."""
    replacing, replaced = out / destination.REPLACING, out / destination.REPLACED
    replacing.mkdir(exist_ok=True)
    for path in destination.own_entries(out):
        files.publish(path, replacing / path.name)
    files.publish(replacing, replaced)
    _move_in(out)


def _move_in(out: Path) -> None:
    staging = out / destination.STAGING
    for path in sorted(staging.iterdir(), key=lambda path: path.name == destination.MARKER):
        files.publish(path, out / path.name)
    files.sync_folder(out)
    _remove(out / destination.REPLACED)
    _remove(staging)


def _finish_within(out: Path) -> None:
    """Recover from a crash within `_publish_within`: put the old files back, or the rest of the new ones in."""
    replacing, replaced, staging = (
        out / name for name in (destination.REPLACING, destination.REPLACED, destination.STAGING)
    )
    if replacing.is_dir():
        for path in sorted(replacing.iterdir()):
            files.publish(path, out / path.name)
        _remove(replacing)
    elif replaced.is_dir() and staging.is_dir():
        _move_in(out)
    _remove(replaced)
    _remove(staging)


def _finish_publishing(out: Path) -> None:
    """Recover from a crash within `_publish`: restore the old folder where the new one was not published yet."""
    if out.is_dir() and not out.is_symlink():
        _finish_within(out)
    old = _backup_of(out)
    if not out.exists() and not out.is_symlink() and (old.exists() or old.is_symlink()):
        files.publish(old, out)
    _remove(old)


def _backup_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
