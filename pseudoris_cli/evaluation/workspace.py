"""Evaluate a work directory against a truth file: its masks, and every captions version made from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.evaluation.metrics import ArtifactRow, CaptionRun, Evaluation, evaluate
from pseudoris_cli.evaluation.truth import read_truth
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.workspace import Artifact, Workspace

_MASK_COLUMNS = ["image_key", "mask_id", "rle_size", "rle_counts"]
_CAPTION_COLUMNS = ["image_key", "mask_id", "caption", "sampler"]


def evaluate_workspace(workspace: Workspace, truth: Path) -> Evaluation:
    """Measure the current masks, and each captions version made from them before and after its last filter.

    Versions are ordered by contrast: plain sampling first. Beam captions do not depend on the contrast and are taken from
    the first version. Raises UsageError for an unusable truth file, or where there are no masks yet.
    """
    masks = workspace.latest("masks")
    known = read_truth(truth)
    made = [a for a in workspace.versions("captions") if a.upstream == masks.version]
    made.sort(key=_order)
    labels = _labels(made)
    runs = [
        CaptionRun(labels[artifact.version], list(rows(artifact, _CAPTION_COLUMNS)), _kept(workspace, artifact))
        for artifact in made
    ]
    return evaluate(known, rows(masks, _MASK_COLUMNS), runs)


def rows(artifact: Artifact, columns: list[str]) -> Iterator[ArtifactRow]:
    """The rows of an artifact as dictionaries with the given `columns`, read part by part."""
    manifest = artifact.manifest()
    for _, entry in sorted(manifest.entries.items()):
        part = read_part(manifest.path_of(entry), columns)
        for values in zip(*(part[name] for name in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _kept(workspace: Workspace, captions: Artifact) -> list[ArtifactRow] | None:
    """What the last filter kept of a captions version; None if it was never filtered."""
    scores = {a.version for a in workspace.versions("scores") if a.upstream == captions.version}
    filters = [a for a in workspace.versions("filter") if a.upstream in scores]
    if not filters:
        return None
    last = max(
        filters, key=lambda artifact: max((e.committed for e in artifact.manifest().entries.values()), default=0.0)
    )
    return [row for row in rows(last, [*_CAPTION_COLUMNS, "kept"]) if row["kept"]]


def _order(captions: Artifact) -> tuple[bool, float, str, str]:
    """The order of versions: by contrast, then those of captioners without one, which have no beam captions either."""
    settings = captions.header["settings"]
    contrast, form = settings.get("contrast", 0), settings.get("contrast_form", "")
    return "contrast" not in settings, contrast, form, captions.version


def _labels(captions: list[Artifact]) -> dict[str, str]:
    """A name for each version that says how its captions were sampled, with the version itself where names are equal."""
    labels = {artifact.version: _label(artifact.header["settings"]) for artifact in captions}
    names = list(labels.values())
    return {v: label if names.count(label) == 1 else f"{label} {v}" for v, label in labels.items()}


def _label(settings: dict[str, Any]) -> str:
    if "contrast" not in settings:  # a captioner that samples in some other way
        return str(settings["backend"])
    if settings["contrast"] == 0:
        return "plain"
    form = "literal" if settings["contrast_form"] == "literal" else "scale-preserving"
    strength = "" if settings["contrast"] == 1 else f" x{settings['contrast']:g}"
    return f"distinctive, {form}{strength}"
