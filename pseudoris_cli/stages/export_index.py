"""Stage 4, first half: the index. Kept expressions get ids in plan order; every format is rendered from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from pseudoris_cli.execution.tasks import ContextMaker, PartInput, PartResult, StageSpec
from pseudoris_cli.export import splits
from pseudoris_cli.settings.models import ExportSettings, Settings, versioned
from pseudoris_cli.storage.copies import copies
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.rows import kept_rows
from pseudoris_cli.storage.schema import COLUMNS

NAME = "export"
REVISION = 1


def version_content(settings: Settings) -> dict[str, Any]:
    """What decides the index, beside its upstream; the name of the data set does not."""
    chosen = splits.Splits(settings.export.split)
    content: dict[str, Any] = {
        "revision": REVISION,
        "settings": versioned(settings.export, include={"split", "max_captions"}),
    }
    if lists := chosen.digests():
        content["split_lists"] = lists
    if chosen.several:
        content["copies"] = "together"  # files of one image went apart before
    return content


def make_spec(settings: Settings, make_context: ContextMaker) -> Spec:
    """The stage; it runs no network."""
    return Spec(settings.export, splits.Splits(settings.export.split))


@dataclass(frozen=True)
class Spec(StageSpec):
    """The index of an export."""

    settings: ExportSettings
    splits: splits.Splits | None = None
    """Read where the command runs, so that its lists need not be found by a worker."""
    name: ClassVar[str] = NAME

    def running_totals(self, plan: Plan, before: Mapping[str, Manifest]) -> dict[int, dict[str, int]]:
        """Refs and sentences in all parts before each part, from the notes of the filter stage: ids follow the plan's order.

        Files of one image are found here too, where all of the plan is at hand.
        """
        if self.splits and self.splits.several and "masks" in before:
            self.splits.keep_together(copies(before["masks"]))
        totals, refs, sentences = {}, 0, 0
        for part in plan.parts:
            totals[part.part] = {"refs": refs, "sentences": sentences}
            if entry := before["filter"].entries.get(part.part):
                refs += entry.notes["kept_masks"]
                sentences += entry.notes["kept"]
        return totals

    def make_worker(self) -> IndexWorker:
        """There is nothing to load."""
        return IndexWorker(self.settings, self.splits or splits.Splits(self.settings.split))


class IndexWorker:
    """Numbers the kept expressions of a part."""

    def __init__(self, settings: ExportSettings, chosen: splits.Splits) -> None:
        self.settings, self.splits = settings, chosen

    def run(self, part: PartInput) -> PartResult:
        """One row per kept expression, best first within a mask. Ids start at 1 and follow the running totals of the plan.

        Sentences that `max_captions` cuts leave gaps in sent_id, so that ids never depend on other parts' texts.
        """
        ref_id, sent_id = part.task.start["refs"], part.task.start["sentences"]
        rows: list[tuple[Any, ...]] = []
        counts: dict[str, int] = {}
        for (key, mask_id), kept in groupby(kept_rows(part.columns["filter"]), lambda row: row[:2]):
            ref_id += 1
            split = self.splits.of(key) or ""
            for rank, (_, _, _, candidate_id, caption) in enumerate(kept):
                sent_id += 1
                if self.settings.max_captions is None or rank < self.settings.max_captions:
                    rows.append((ref_id, ref_id, sent_id, split, key, mask_id, candidate_id, caption))
                    counts[key] = counts.get(key, 0) + 1
        names = [c.name for c in COLUMNS[NAME]]
        columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
        return PartResult(columns, {ref.key: (counts.get(ref.key, 0), None) for ref in part.task.images})
