"""Find the versions that a report describes, and read their parts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import PartEntry
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.workspace import Artifact, Workspace

SHOWN = NAMES[:-1]
"""The stages whose rows a report shows; the last one, the export, only adds ids to them."""


def find_version(workspace: Workspace, version: str) -> Artifact:
    """The version of that name, or whose name begins so, of any stage. Raises UsageError listing the existing versions."""
    made = [artifact for stage in NAMES for artifact in workspace.versions(stage)]
    fitting = [artifact for artifact in made if artifact.version.startswith(version)]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{artifact.version} ({artifact.stage})" for artifact in made)
    raise UsageError(f"--from {version}: there is no such version in {workspace.root} (there are: {known or 'none'})")


def chain_of(workspace: Workspace, start: Artifact | None = None) -> dict[str, Artifact]:
    """A version, the versions it was made from, and those made from it, by stage.

    `start` defaults to the current version that was chosen or worked on last; a pilot's, only where there is nothing else. Of
    several versions made from the same one, the current one is taken, else the one worked on last. Raises UsageError if there
    is no version yet.
    """
    if start is None:
        plan = workspace.plan_looked_at()
        current = [workspace.latest(stage, plan=plan) for stage in NAMES if workspace.current(stage, plan)]
        start = max(current or [workspace.latest("masks", plan=plan)], key=lambda made: _last_change(workspace, made))
    chain = workspace.chain(start)
    for stage in NAMES:
        if stage in chain:
            continue
        here = {name: artifact.version for name, artifact in chain.items()}
        made = [made for made in workspace.versions(stage) if here.get(made.upstream_stage or "") == made.upstream]
        if made:
            current_version = workspace.current(stage, start.plan_name)
            chain[stage] = max(made, key=lambda a: (a.version == current_version, _last_commit(a)))
    return {stage: chain[stage] for stage in NAMES if stage in chain}


def _last_change(workspace: Workspace, artifact: Artifact) -> tuple[float, int]:
    """A sort key: when a current version was selected or last written to, and for equal times the later stage."""
    chosen = workspace.chosen_at(artifact.stage, artifact.plan_name)
    return max(chosen, _last_commit(artifact)), NAMES.index(artifact.stage)


def _last_commit(artifact: Artifact) -> float:
    return max((entry.committed for entry in artifact.manifest().entries.values()), default=0.0)


class Parts:
    """The parts of a chain of versions that fit together, by their number in the common plan.

    A part is left out where it is damaged or was made from an upstream part that has been replaced since."""

    def __init__(self, workspace: Workspace, chain: dict[str, Artifact]) -> None:
        self.chain = chain
        self.plan: Plan = workspace.plan(chain["masks"].plan_name)
        self.manifests = {stage: artifact.manifest() for stage, artifact in chain.items()}
        self._lineage = Lineage(self.manifests)

    def entry(self, stage: str, part: int) -> PartEntry | None:
        """The committed part of a stage; None if it is missing or out of date."""
        return self._lineage.entry(stage, part) if stage in self.chain else None

    def columns(self, stage: str, part: int, names: list[str] | None = None) -> dict[str, Any]:
        """The columns of a part (all, or those in `names`); {} if it is missing or out of date."""
        entry = self.entry(stage, part)
        return read_part(self.manifests[stage].path_of(entry), names) if entry else {}

    def covered(self, stage: str) -> list[int]:
        """The numbers of the parts that a stage has completed."""
        return [planned.part for planned in self.plan.parts if self.entry(stage, planned.part)]

    @cached_property
    def deepest(self) -> str:
        """The last stage of SHOWN that has completed any part. Raises UsageError if none has."""
        for stage in reversed(SHOWN):
            if self.covered(stage):
                return stage
        raise UsageError(
            "there are no masks yet: the run that made this version committed nothing. Run `pseudoris masks` again"
        )
