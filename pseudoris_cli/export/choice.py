"""What of the kept expressions an export takes: a list of images, the first so many, masks above a size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export.base import ExportImage
from pseudoris_cli.records import Mask
from pseudoris_cli.storage.plan import Plan

_SHOWN = 3


@dataclass(frozen=True)
class Choice:
    """`subset`: keys of the images to take; `max_images`: the first so many of what is left, in plan order; `min_area`: the least
    area of a mask, in pixels, or below 1 as a fraction of the image."""

    subset: frozenset[str] | None = None
    max_images: int | None = None
    min_area: float = 0.0

    def takes(self, image_key: str) -> bool:
        """Whether an image is in the subset."""
        return self.subset is None or image_key in self.subset

    def is_large(self, mask: Mask) -> bool:
        """Whether a mask has the least area."""
        pixels = self.min_area if self.min_area >= 1 else self.min_area * mask.rle.height * mask.rle.width
        return mask.area >= pixels

    def of(self, images: Iterable[ExportImage]) -> Iterator[ExportImage]:
        """The first `max_images` of a stream, which is read no further."""
        return islice(images, self.max_images)

    def check(self, plan: Plan) -> None:
        """UsageError (exit 2) if the subset names images that are not planned."""
        if self.subset is None:
            return
        unknown = self.subset - {image.key for image in plan.all_images()}
        if unknown:
            some = ", ".join(sorted(unknown)[:_SHOWN]) + (", ..." if len(unknown) > _SHOWN else "")
            raise UsageError(
                f"--subset: {len(unknown):,} of its {len(self.subset):,} names are no image of this work directory ({some}). "
                "Write them as `pseudoris export --format jsonl` does in image_key"
            )

    def identity(self) -> dict[str, Any]:
        """What determines the files of an export; nothing where everything is taken."""
        found: dict[str, Any] = {}
        if self.subset is not None:
            found["subset"] = hashlib.sha256(
                "\n".join(sorted(self.subset)).encode("utf-8", "surrogatepass")
            ).hexdigest()
        if self.max_images is not None:
            found["max_images"] = self.max_images
        if self.min_area:
            found["min_area"] = self.min_area
        return found
