"""What stages have in common whose network may be a server's: where answers are kept, and what an earlier state of a part holds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pseudoris_cli.endpoint.journal import discard, journal_path
from pseudoris_cli.execution.tasks import ImageStage
from pseudoris_cli.records import MaskedImage
from pseudoris_cli.settings.models import BackendSettings
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.schema import Columns

SCENES = "scenes"
"""In the notes of a part: image key -> digest of the image and its masks."""


@dataclass(frozen=True)
class ServedStage(ImageStage):
    """The base of such stages. `place`: the folder of its parts and the name of its writer."""

    place: tuple[Path, str] | None = field(default=None, kw_only=True)

    @property
    def backend(self) -> BackendSettings:
        """The settings of the network that may be a server's."""
        raise NotImplementedError

    @property
    def runs_elsewhere(self) -> bool:
        """Whether it is."""
        return self.backend.RUNS_ELSEWHERE

    def placed(self, folder: Path, writer: str) -> Self:
        """The journal of answers lies beside the parts."""
        return replace(self, place=(folder, writer))

    def clean_up(self) -> None:
        """The part is committed: its answers need no journal."""
        if self.place and self.runs_elsewhere:
            discard(*self.place)

    @property
    def journal(self) -> Path | None:
        """Where answers are kept until their part is committed."""
        return journal_path(*self.place) if self.place else None


def committed(place: tuple[Path, str] | None, part: int) -> tuple[Columns, dict[str, Any]]:
    """The rows and notes of the committed state of a part; empty where there is none."""
    if place is None:
        return {}, {}
    manifest = Manifest(place[0])
    entry = manifest.entries.get(part)
    if entry is None or not manifest.is_intact(entry):
        return {}, {}
    return read_part(manifest.path_of(entry)), entry.notes


def scene_digest(image_sha256: str, image: MaskedImage) -> str:
    """What tells whether an image and its masks are those of before."""
    text = "\n".join([image_sha256, *(f"{mask.mask_id} {mask.rle.counts}" for mask in image.masks)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
