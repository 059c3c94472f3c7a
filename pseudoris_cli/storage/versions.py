"""The versions of a work directory side by side: their order, what differs, and which of them later stages use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pseudoris_cli.settings.trees import leaves
from pseudoris_cli.storage.plan import pilot_of
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.stage_table import stage as stage_row
from pseudoris_cli.storage.workspace import Artifact, Workspace

_RECORDED = {
    "created",
    "pseudoris",
    "python",
    "packages",
    "resolved",
    "stage",
    "version",
    "upstream",
    "upstream_stage",
    "plan",
}
"""What a header holds beside the content that names the version; upstream and plan are told in words of their own."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing in which two versions differ; None stands for what one of them does not have."""

    name: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.name} {_shown(self.before)} → {_shown(self.after)}"


def by_date(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Versions in the order in which they were begun."""
    return sorted(artifacts, key=lambda one: (one.header.get("created", ""), one.version))


def differences(before: Artifact, after: Artifact) -> list[Difference]:
    """What made `after` another version than `before`, of the same stage: settings first, then what it was made from."""
    old, new = (dict(_content(one)) for one in (before, after))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    for made, content in ((before, old), (after, new)):  # a setting at a default that its version does not name
        in_force = dict(leaves(made.header.get("resolved") or {}))
        content |= {name: in_force[name] for name in names if name not in content and name in in_force}
    changed = [Difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
    if before.upstream != after.upstream:
        stages = before.upstream_stage, after.upstream_stage
        if None in stages or stages[0] == stages[1]:
            changed.append(Difference(stages[1] or stages[0] or "upstream", before.upstream, after.upstream))
        else:  # with and without an optional stage between
            made_of = (f"{stage} {one.upstream}" for stage, one in zip(stages, (before, after), strict=True))
            changed.append(Difference("made from", *made_of))
    if before.plan_name != after.plan_name:
        changed.append(Difference("images", *(pilot_of(one.plan_name) or "all" for one in (before, after))))
    return changed


def chain_differences(workspace: Workspace, before: Artifact, after: Artifact) -> list[Difference]:
    """The same through all stages that the two were made from, the first stage first; versions of stages are left out."""
    old, new = (workspace.chain(one) for one in (before, after))
    found: list[Difference] = []
    for stage in (name for name in NAMES if name in old and name in new):
        stages = {old[stage].upstream_stage, new[stage].upstream_stage}
        stages |= {"made from"}
        found += [one for one in differences(old[stage], new[stage]) if one.name not in stages and one not in found]
    return found


def choose(workspace: Workspace, artifact: Artifact) -> dict[str, Artifact]:
    """Make a version current, with all that it was made from and, of the stages after it, the newest finished versions
    made from it; returns what is current now because of that, by stage."""
    chosen = dict(reversed(workspace.chain(artifact).items()))
    for stage in NAMES[NAMES.index(artifact.stage) + 1 :]:
        made = [
            one
            for one in workspace.versions(stage)
            if (before := chosen.get(one.upstream_stage or "")) and one.upstream == before.version
        ]
        if finished := [one for one in by_date(made) if workspace.is_complete(one)]:
            chosen[stage] = finished[-1]
    for one in chosen.values():
        workspace.use(one)
    return chosen


def _content(artifact: Artifact) -> Iterator[tuple[str, Any]]:
    """Names and values of what decides a version, as the user writes settings."""
    section = stage_row(artifact.stage).command
    for name, value in artifact.header.items():
        if name not in _RECORDED:
            yield from leaves({section if name == "settings" else name: value})


def _shown(value: Any) -> str:
    """A value on one line; a digest by its beginning."""
    if isinstance(value, str) and len(value) == 64:
        return value[:12]
    return "none" if value is None else str(value)
