"""Two versions of a stage compared: settings, counts, and which kept captions one has and the other has not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage.manifest import Manifest
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.status import VersionState, state_of
from pseudoris_cli.storage.versions import Difference, by_date, chain_differences
from pseudoris_cli.storage.workspace import Artifact, Workspace

EXAMPLES = 5
_COLUMNS = ["image_key", "mask_id", "caption", "kept"]
Kept = tuple[str, int | None, str]
"""image_key, mask_id (None where the masks differ and so their ids mean nothing), caption."""


@dataclass
class KeptCaptions:
    """Kept captions of the images that both have."""

    before_filter: str
    after_filter: str
    images: int = 0
    by_mask: bool = True
    """Whether both come from the same masks; else a caption counts once an image."""
    both: int = 0
    gained: int = 0
    lost: int = 0
    gained_examples: list[Kept] = field(default_factory=list)
    lost_examples: list[Kept] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """What two versions of one stage have in common and what not; `kept` is None where one of them was never filtered.

    Of several filters made from them those are compared whose settings are nearest; `differs` names theirs too.
    """

    before: VersionState
    after: VersionState
    differs: tuple[Difference, ...]
    kept: KeptCaptions | None


def find_any(workspace: Workspace, version: str) -> Artifact:
    """The version of any stage that has this name, or the only one whose name begins so. UsageError if there is none."""
    made = [one for stage in NAMES for one in workspace.versions(stage)]
    fitting = [one for one in made if version and one.version.startswith(version)]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(f"{one.version} ({one.stage})" for one in fitting or made) or "none"
    how = "begins several versions" if fitting else "is no version"
    raise UsageError(f"{version!r} {how} of {workspace.root} (there are: {listed})")


def compare(workspace: Workspace, before: Artifact, after: Artifact) -> Comparison:
    """Compare two versions. UsageError if they are of different stages."""
    if before.stage != after.stage:
        raise UsageError(
            f"{before.version} is a version of {before.stage}, {after.version} of {after.stage}; name two of one stage"
        )
    pairs = list(product(_filters_of(workspace, before), _filters_of(workspace, after)))
    states = state_of(workspace, before), state_of(workspace, after)
    if not pairs:
        return Comparison(*states, tuple(chain_differences(workspace, before, after)), None)
    old, new = min(reversed(pairs), key=lambda pair: len(chain_differences(workspace, *pair)))
    return Comparison(*states, tuple(chain_differences(workspace, old, new)), _compare_kept(workspace, old, new))


def _filters_of(workspace: Workspace, artifact: Artifact) -> list[Artifact]:
    """The filter that a version was made from, else those made from it by date; unfinished ones only for want of others."""
    chain = workspace.chain(artifact)
    if "filter" in chain:
        return [chain["filter"]]
    made = [
        one
        for one in by_date(workspace.versions("filter"))
        if (own := workspace.chain(one).get(artifact.stage)) and own.version == artifact.version
    ]
    return [one for one in made if workspace.is_complete(one)] or made


def _compare_kept(workspace: Workspace, before: Artifact, after: Artifact) -> KeptCaptions:
    masks = [workspace.chain(one)["masks"].version for one in (before, after)]
    found = KeptCaptions(before.version, after.version, by_mask=masks[0] == masks[1])
    for old, new in _pairs(workspace, before, after):
        images = set(old) & set(new)
        found.images += len(images)
        a, b = ({_kept(row, found.by_mask) for key in images for row in side[key]} for side in (old, new))
        found.both += len(a & b)
        for name, only in (("gained", b - a), ("lost", a - b)):
            setattr(found, name, getattr(found, name) + len(only))
            examples = getattr(found, f"{name}_examples")
            examples += sorted(only)[: EXAMPLES - len(examples)]
    return found


def _kept(row: Kept, by_mask: bool) -> Kept:
    return row if by_mask else (row[0], None, row[2])


Images = dict[str, list[Kept]]
"""What is kept of each image that was answered."""


def _pairs(workspace: Workspace, before: Artifact, after: Artifact) -> Iterator[tuple[Images, Images]]:
    """What both kept, part by part where they share a plan: memory then does not grow with the images."""
    old, new = before.manifest(), after.manifest()
    if before.plan_name == after.plan_name:
        for part in sorted(old.entries.keys() & new.entries.keys()):
            yield _images(old, [part]), _images(new, [part])
        return
    small, large = sorted((old, new), key=lambda one: sum(one.counts().values()))
    few = _images(small, list(small.entries))
    for part in sorted(large.entries):
        many = _images(large, [part])
        yield (few, many) if small is old else (many, few)


def _images(manifest: Manifest, parts: list[int]) -> Images:
    found: Images = {}
    for entry in (manifest.entries[part] for part in parts if part in manifest.entries):
        found |= {image.key: [] for image in entry.images if image.status in ("done", "empty")}
        columns = read_part(manifest.path_of(entry), _COLUMNS)
        for key, mask_id, caption, kept in zip(*(columns[name] for name in _COLUMNS), strict=True):
            if kept:
                found.setdefault(key, []).append((key, int(mask_id), caption))
    return found
