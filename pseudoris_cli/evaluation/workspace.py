"""Evaluate a work directory against a truth file: its masks, and every captions version made from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.metrics import ArtifactRow, CaptionRun, Evaluation, evaluate
from pseudoris_cli.evaluation.truth import read_truth
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import pilot_of
from pseudoris_cli.storage.workspace import Artifact, Workspace

_MASK_COLUMNS = ["image_key", "mask_id", "rle_size", "rle_counts"]
_CAPTION_COLUMNS = ["image_key", "mask_id", "caption", "sampler"]


def evaluate_workspace(workspace: Workspace, truth: Path, plan: str | None = None) -> Evaluation:
    """Measure the current masks, and each captions version made from them before and after its filters, on the images that
    both the truth and the masks have. Of filters that select by the same means (DoC, listener, both) the last one counts.

    `plan` names a pilot; by default it is that of the whole source, or of the last pilot where there is nothing else.
    Versions are ordered by contrast: plain sampling first. Beam captions do not depend on the contrast and are taken from
    the first version. Versions that have answered fewer of the images than others are left out, and named. Raises UsageError
    for an unusable truth file, where there are no masks yet, or where truth and masks have no image in common.
    """
    masks = workspace.latest("masks", plan=plan or workspace.plan_looked_at())
    truth_images = read_truth(truth)
    answered = answered_images(masks)
    known = [image for image in truth_images if image.key in answered]
    if not known:
        raise UsageError(_nothing_in_common(truth, [image.key for image in truth_images], masks, answered))
    common = {image.key for image in known}
    made = [a for a in workspace.versions("captions") if a.upstream == masks.version]
    made, behind = _on_all_of(common, made)
    made.sort(key=_order)
    labels = _labels(made)
    runs = [_run(workspace, artifact, labels[artifact.version], common) for artifact in made]
    found = evaluate(known, rows(masks, _MASK_COLUMNS), runs)
    return replace(
        found,
        masks_version=masks.version,
        pilot=pilot_of(masks.plan_name),
        images_in_truth=len(truth_images),
        images_in_masks=len(answered),
        left_out=tuple(artifact.version for artifact in behind),
    )


def answered_images(artifact: Artifact) -> set[str]:
    """The images that a version has answered, those without any mask and the failed ones included; vanished ones are not."""
    entries = artifact.manifest().entries.values()
    return {image.key for entry in entries for image in entry.images if image.status != "gone"}


def _on_all_of(images: set[str], made: list[Artifact]) -> tuple[list[Artifact], list[Artifact]]:
    """The versions that have answered the most of these images, and those that lack some of them."""
    counts = [len(images & answered_images(artifact)) for artifact in made]
    most = max(counts, default=0)
    whole = [artifact for artifact, count in zip(made, counts, strict=True) if count == most]
    return whole, [artifact for artifact in made if artifact not in whole]


def _nothing_in_common(truth: Path, known: list[str], masks: Artifact, answered: set[str]) -> str:
    def some(keys: Iterable[str]) -> str:
        return next((f", e.g. {key}" for key in sorted(keys)), "")

    return (
        f"none of the {len(known):,} images of {truth}{some(known)} is among the {len(answered):,} of masks "
        f"{masks.version}{some(answered)}, so there is nothing to measure. Images are compared by name: give the truth of these "
        "images (--truth), the work directory that belongs to it (--work), or --pilot for the images of the pilot"
    )


def rows(artifact: Artifact, columns: list[str]) -> Iterator[ArtifactRow]:
    """The rows of an artifact as dictionaries with the given `columns`, read part by part."""
    manifest = artifact.manifest()
    for _, entry in sorted(manifest.entries.items()):
        part = read_part(manifest.path_of(entry), columns)
        for values in zip(*(part[name] for name in columns), strict=True):
            yield dict(zip(columns, values, strict=True))


def _run(workspace: Workspace, captions: Artifact, label: str, images: set[str]) -> CaptionRun:
    """A captions version with what its filters kept; the curves are of the filter that has most of the listener's answers."""
    wanted = images & answered_images(captions)
    chosen = _last_filters(workspace, captions, wanted)
    kept = {name: [row for row in rows(a, [*_CAPTION_COLUMNS, "kept"]) if row["kept"]] for name, a in chosen.items()}
    said = list(rows(captions, _CAPTION_COLUMNS))
    if not chosen:
        return CaptionRun(label, said)
    fullest = next(chosen[name] for name in ("listener", "both", "DoC") if name in chosen)
    columns = ["image_key", "mask_id", "caption", "doc", *(() if fullest is chosen.get("DoC") else ("listener",))]
    bounds = [_min_doc(chosen[name]) for name in ("both", "DoC") if name in chosen]
    heard = {name: of for name, of in kept.items() if name != "DoC"}
    return CaptionRun(label, said, kept.get("DoC"), heard, list(rows(fullest, columns)), bounds[0] if bounds else 0.0)


def _last_filters(workspace: Workspace, captions: Artifact, wanted: set[str]) -> dict[str, Artifact]:
    """For each way of selecting the last filter version of a captions version that has answered all wanted images."""
    scores = {a.version for a in workspace.versions("scores") if a.upstream == captions.version}
    judged = {a.version for a in workspace.versions("judge") if a.upstream in scores}
    found: dict[str, tuple[float, Artifact]] = {}
    for artifact in workspace.versions("filter"):
        if artifact.upstream in scores | judged and wanted <= answered_images(artifact):
            by_doc = _min_doc(artifact) > 0
            name = "DoC" if artifact.upstream in scores else "both" if by_doc else "listener"
            made = max((e.committed for e in artifact.manifest().entries.values()), default=0.0)
            if name not in found or made >= found[name][0]:
                found[name] = made, artifact
    return {name: artifact for name, (_, artifact) in found.items()}


def _min_doc(artifact: Artifact) -> float:
    return float(artifact.header["settings"]["min_doc"])


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
