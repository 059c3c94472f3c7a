"""Stage 4, first half: the index. Kept expressions get ids in plan order; every format is rendered from it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

from pseudoris_cli.execution.tasks import PartInput, PartResult
from pseudoris_cli.export import splits
from pseudoris_cli.settings.models import ExportSettings
from pseudoris_cli.storage.rows import kept_rows
from pseudoris_cli.storage.schema import COLUMNS

NAME = "export"
REVISION = 1


def version_content(settings: ExportSettings) -> dict[str, Any]:
    """What decides the index, beside its upstream; the name of the data set does not."""
    return {"revision": REVISION, "settings": settings.model_dump(mode="json", include={"split", "max_captions"})}


@dataclass(frozen=True)
class Spec:
    """The index of an export."""

    settings: ExportSettings
    source: None = None
    max_pixels: int = 0
    decode_threads: int = 1
    decode_ahead: int = 1
    name: ClassVar[str] = NAME

    def make_worker(self) -> IndexWorker:
        """There is nothing to load."""
        return IndexWorker(self.settings)


class IndexWorker:
    """Numbers the kept expressions of a part."""

    def __init__(self, settings: ExportSettings) -> None:
        self.settings = settings
        self.shares = splits.parse(settings.split)

    def run(self, part: PartInput) -> PartResult:
        """One row per kept expression, best first within a mask. Ids start at 1 and follow the running totals of the plan.

        Sentences that `max_captions` cuts leave gaps in sent_id, so that ids never depend on other parts' texts.
        """
        ref_id, sent_id = part.task.start["refs"], part.task.start["sentences"]
        rows: list[tuple[Any, ...]] = []
        counts: dict[str, int] = {}
        for (key, mask_id), kept in groupby(kept_rows(part.columns["filter"]), lambda row: row[:2]):
            ref_id += 1
            split = splits.assign(key, self.shares)
            for rank, (_, _, _, candidate_id, caption) in enumerate(kept):
                sent_id += 1
                if self.settings.max_captions is None or rank < self.settings.max_captions:
                    rows.append((ref_id, ref_id, sent_id, split, key, mask_id, candidate_id, caption))
                    counts[key] = counts.get(key, 0) + 1
        names = [c.name for c in COLUMNS[NAME]]
        columns = {name: [row[number] for row in rows] for number, name in enumerate(names)}
        return PartResult(columns, {ref.key: (counts.get(ref.key, 0), None) for ref in part.task.images})
