"""Stage 3b: which candidates are kept. Pure selection over columns; no score is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from pseudoris_cli.execution.tasks import ContextMaker, PartInput, PartResult, StageSpec
from pseudoris_cli.settings.models import FilterSettings, Settings, versioned
from pseudoris_cli.storage.schema import COLUMNS, Columns

NAME = "filter"
REVISION = 2


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    selection = settings.filter
    return {"revision": REVISION, "settings": versioned(selection, exclude=set(selection.SCORES))}


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage; it runs no network."""
    return Spec(settings.filter)


@dataclass(frozen=True)
class Spec(StageSpec):
    """The filter stage."""

    settings: FilterSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> FilterWorker:
        """There is nothing to load."""
        return FilterWorker(self.settings)


class FilterWorker:
    """Selection among the scored candidates of a part."""

    def __init__(self, settings: FilterSettings) -> None:
        self.settings = settings

    def run(self, part: PartInput) -> PartResult:
        """Every candidate of a part with its scores, the verdict and the reason."""
        from pseudoris_cli.method import filter_summary, selection

        columns = join(part.columns["captions"], part.columns["scores"])
        chosen = selection.select(columns, self.settings)
        columns = {c.name: (columns | chosen)[c.name] for c in COLUMNS[NAME]}
        rows: Counter[str] = Counter(columns["image_key"])
        counts = filter_summary.count(columns)
        kept_masks = sum(masks for kept, masks in counts["masks_by_kept"].items() if kept != "0")
        notes = {"kept": counts["kept"], "kept_masks": kept_masks, "summary": counts}
        return PartResult(columns, {ref.key: (rows.get(ref.key, 0), None) for ref in part.task.images}, notes)


def join(captions: Columns, scores: Columns) -> Columns:
    """Captions with their scores. Both parts hold the same candidates in the same order, images that failed in between
    excepted."""
    wanted = list(zip(*(scores[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True))
    keys = list(zip(*(captions[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True))
    if keys != wanted:
        present = set(wanted)
        rows = [number for number, key in enumerate(keys) if key in present]
        captions = {
            name: values[rows] if hasattr(values, "dtype") else [values[row] for row in rows]
            for name, values in captions.items()
        }
    return captions | scores


def figures(notes: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The summary of a filter version (filter_summary.figures) from what its parts noted; None before its first part."""
    from pseudoris_cli.method import filter_summary

    counts: dict[str, Any] = {}
    for note in notes:
        counts = filter_summary.add(counts, note["summary"])
    return filter_summary.figures(counts) if counts else None
