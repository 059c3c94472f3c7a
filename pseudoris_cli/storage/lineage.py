"""Which parts of a chain of stages hold together."""

from __future__ import annotations

from pseudoris_cli.storage.manifest import Manifest, PartEntry
from pseudoris_cli.storage.stage_table import upstream_of


class Lineage:
    """Which parts of a chain of stages hold together: each whole, and made from the part that is now before it."""

    def __init__(self, manifests: dict[str, Manifest]) -> None:
        """`manifests`: those of a version and of all that it was made from, by stage."""
        self.manifests = manifests
        self._known: dict[tuple[str, int], PartEntry | None] = {}

    def entry(self, stage: str, part: int) -> PartEntry | None:
        """The part of a stage if it is there and holds together with all parts before it."""
        place = (stage, part)
        if place not in self._known:
            self._known[place] = self._valid(stage, part)
        return self._known[place]

    def _valid(self, stage: str, part: int) -> PartEntry | None:
        manifest = self.manifests[stage]
        entry = manifest.entries.get(part)
        if entry is None or not manifest.is_whole(entry):
            return None
        parent = upstream_of(stage, self.manifests)
        if parent is None:
            return entry
        origin = self.entry(parent, part)
        return entry if origin and entry.upstream and entry.upstream.startswith(origin.file.sha256) else None
