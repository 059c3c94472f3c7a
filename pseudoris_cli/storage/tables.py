"""What a stage made as one Arrow table."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.storage import schema
from pseudoris_cli.storage.plan import PLAN, pilot_plan
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.workspace import Workspace


def read_table(work: str | Path, stage: str, version: str | None = None, pilot: int | None = None) -> pa.Table:
    """All rows of a stage (masks, captions, scores, filter or export) in plan order, with the columns of docs/artifacts.md.

    `version` is a name from `pseudoris status` (its beginning is enough), by default the current one, or with `pilot` that of the
    pilot of so many images. `.to_pandas()` of the table makes a pandas DataFrame where pandas is installed. Raises UsageError where
    there is nothing to read, EnvironmentStop for a damaged part.
    """
    if stage not in NAMES:
        raise UsageError(f"there is no stage {stage!r}; choose from {', '.join(NAMES)}")
    workspace = Workspace(Path(work).expanduser())
    if workspace.source() is None:
        raise UsageError(f"{workspace.root} is no work directory")
    manifest = workspace.latest(stage, version, pilot_plan(pilot) if pilot else PLAN).manifest()
    tables = []
    for _, entry in sorted(manifest.entries.items()):
        path = manifest.path_of(entry)
        try:
            tables.append(pq.read_table(path, partitioning=None).replace_schema_metadata())
        except (OSError, pa.ArrowException) as error:
            raise EnvironmentStop(
                f"{path} cannot be read: {error}; `pseudoris status --verify` finds what is damaged, and the stage makes it again"
            ) from error
    return pa.concat_tables(tables, promote_options="default") if tables else schema.arrow_schema(stage).empty_table()
