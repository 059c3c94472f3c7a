"""Stage 3b: which candidates are kept. Pure selection over columns; no score is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pseudoris_cli.codecs.decisions import Key, read_decisions
from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.tasks import ContextMaker, PartInput, PartResult, StageSpec
from pseudoris_cli.settings.models import FilterSettings, Settings, versioned
from pseudoris_cli.storage.rows import join
from pseudoris_cli.storage.schema import OPTIONAL, Columns, columns_of

NAME = "filter"
REVISION = 2


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the results of this stage, beside its upstream."""
    selection = settings.filter
    values = versioned(selection, exclude={*selection.SCORES, "judge"})
    if selection.decisions is not None:  # what it says decides, not where it lies
        values["decisions"] = read_decisions(Path(selection.decisions)).digest
    return {"revision": REVISION, "settings": values}


def check_upstream(settings: Settings, versions: Mapping[str, str]) -> None:
    """UsageError (exit 2) if decisions were made on other masks: their numbers mean other objects here."""
    if settings.filter.decisions is None:
        return
    made = read_decisions(Path(settings.filter.decisions)).masks
    if made and made != versions["masks"]:
        raise UsageError(
            f"{settings.filter.decisions} was decided on the masks {made}, these captions are of the masks {versions['masks']}: "
            "mask numbers mean other objects there. Decide in a report on these, or leave them out: --set filter.decisions=null"
        )


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
        path = self.settings.decisions
        return FilterWorker(self.settings, read_decisions(Path(path)).keep if path else {})


class FilterWorker:
    """Selection among the scored candidates of a part."""

    def __init__(self, settings: FilterSettings, decided: dict[Key, bool]) -> None:
        self.settings, self.decided = settings, decided

    def run(self, part: PartInput) -> PartResult:
        """Every candidate of a part with its scores, the verdict and the reason."""
        from pseudoris_cli.method import by_hand, filter_summary, selection

        columns = join(part.columns["captions"], part.columns["scores"])
        if "judge" in part.columns:
            columns |= heard(columns, part.columns["judge"])
        chosen = selection.select(columns, self.settings)
        decided = by_hand.apply(columns, chosen, self.decided) if self.decided else None
        columns = {c.name: (columns | chosen)[c.name] for c in columns_of(NAME, columns)}
        rows: Counter[str] = Counter(columns["image_key"])
        counts = filter_summary.count(columns) | ({"by_hand": decided} if decided else {})
        kept_masks = sum(masks for kept, masks in counts["masks_by_kept"].items() if kept != "0")
        notes = {"kept": counts["kept"], "kept_masks": kept_masks, "summary": counts}
        return PartResult(columns, {ref.key: (rows.get(ref.key, 0), None) for ref in part.task.images}, notes)


def heard(candidates: Columns, judged: Columns) -> Columns:
    """What the listener said of each candidate, in their order; null for those whose image it could not judge."""
    keys = zip(*(judged[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True)
    row_of = {(key, int(mask_id), int(number)): row for row, (key, mask_id, number) in enumerate(keys)}
    wanted = zip(*(candidates[name] for name in ("image_key", "mask_id", "candidate_id")), strict=True)
    rows = [row_of.get((key, int(mask_id), int(number))) for key, mask_id, number in wanted]
    return {
        column.name: [None if row is None else _plain(judged[column.name][row]) for row in rows]
        for column in OPTIONAL[NAME][0]
    }


def _plain(value: Any) -> Any:
    """A value of a column, None for NaN, which stands for null in columns of numbers."""
    return None if isinstance(value, float) and value != value else value


def figures(notes: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The summary of a filter version (filter_summary.figures) from what its parts noted; None before its first part."""
    from pseudoris_cli.method import filter_summary

    counts: dict[str, Any] = {}
    for note in notes:
        counts = filter_summary.add(counts, note["summary"])
    return filter_summary.figures(counts) if counts else None
