"""Which parts of a chain of stages hold together."""

from __future__ import annotations

from pseudoris_cli.storage.manifest import Manifest, PartEntry
from pseudoris_cli.storage.stage_table import upstream_of


class Lineage:
    """Which parts of a chain of stages hold together: each intact, and made from the part that is now before it."""

    def __init__(self, manifests: dict[str, Manifest]) -> None:
        """`manifests`: those of a version and of all that it was made from, by stage."""
        self.manifests = manifests
        self._known: dict[tuple[str, int], PartEntry | None] = {}

    def entry(self, stage: str, part: int) -> PartEntry | None:
        """The part of a stage if it is there and holds together with all parts before it."""
        key = (stage, part)
        if key not in self._known:
            self._known[key] = self._valid(stage, part)
        return self._known[key]

    def _valid(self, stage: str, part: int) -> PartEntry | None:
        manifest = self.manifests[stage]
        entry = manifest.entries.get(part)
        if entry is None or not manifest.is_intact(entry):
            return None
        above = upstream_of(stage, self.manifests)
        if above is None:
            return entry
        upstream = self.entry(above, part)
        return entry if upstream and entry.upstream and entry.upstream.startswith(upstream.file.sha256) else None
