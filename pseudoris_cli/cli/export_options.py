"""The flags of an export that `export` and `run` share: what is taken, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.cli.options import setting_option

if TYPE_CHECKING:
    from pseudoris_cli.export.choice import Choice


@dataclass
class ExportOptions:
    """The first three choose from what is there and are remembered nowhere; the others are settings."""

    subset: Annotated[
        Path | None, typer.Option(metavar="FILE", help="export only the images of this list, one image key a line")
    ] = None
    max_images: Annotated[
        int | None, typer.Option(min=1, help="export only the first images that have something, in plan order")
    ] = None
    min_area: Annotated[
        float, typer.Option(min=0, help="least area of a mask: pixels, or below 1 a fraction of the image")
    ] = 0.0
    segmentation: Annotated[str | None, setting_option("export.segmentation")] = None
    sentences: Annotated[str | None, setting_option("export.sentences")] = None
    shard_mb: Annotated[int | None, setting_option("export.shard_mb", min=1)] = None

    @property
    def flags(self) -> dict[str, Any]:
        """The settings among them."""
        return {f"export.{name}": getattr(self, name) for name in ("segmentation", "sentences", "shard_mb")}

    @property
    def choice(self) -> Choice:
        """What is taken. UsageError if the list cannot be read."""
        from pseudoris_cli.export.choice import Choice
        from pseudoris_cli.export.splits import read_names

        subset = None if self.subset is None else read_names(self.subset.expanduser(), "--subset")
        return Choice(subset, self.max_images, self.min_area)
