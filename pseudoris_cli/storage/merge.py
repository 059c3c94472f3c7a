"""One work directory from several that were made with equal settings: their parts, one after the other, under new numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage.lineage import Lineage
from pseudoris_cli.storage.manifest import Manifest, ManifestWriter, PartEntry
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.plan import Plan
from pseudoris_cli.storage.schema import SCHEMA_VERSION
from pseudoris_cli.storage.stage_table import FIRST, upstream_of
from pseudoris_cli.storage.workspace import Artifact, Workspace

LAST = "filter"
"""The last stage that is copied: the index, and with it all ids, is made anew."""
MOST_NAMES = 20
_NOT_CONTENT = frozenset(
    {"stage", "version", "created", "pseudoris", "python", "packages", "resolved", "upstream_stage"}
)


@dataclass
class Merged:
    """What a merge came to. `duplicates` are images whose bytes an earlier image has: (its key, the earlier one's key)."""

    parts: int = 0
    images: int = 0
    duplicate_images: int = 0
    duplicates: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Site:
    """One work directory to merge, under its label."""

    label: str
    workspace: Workspace
    chain: dict[str, Artifact]


def open_sites(roots: Sequence[Path], version: str | None = None) -> list[Site]:
    """The work directories with the current (or named) version of their filter stage.

    UsageError (exit 2) if one is named twice, lacks parts, or was made with other settings than the first.
    """
    sites: list[Site] = []
    if len({root.resolve() for root in roots}) < len(roots):
        raise UsageError("a work directory is named twice; name each once")
    for number, root in enumerate(roots):
        workspace = Workspace(root)
        if workspace.source() is None:
            raise UsageError(f"{root} is no work directory")
        chain = workspace.chain(workspace.latest(LAST, version))
        name = "".join(c if c.isalnum() or c in "._-" else "_" for c in root.resolve().name).lstrip(".") or "work"
        taken = {site.label for site in sites}
        site = Site(name if name not in taken else f"{name}-{number}", workspace, chain)
        if chain[LAST].header["schema"] != SCHEMA_VERSION:
            raise UsageError(f"{root} was made by an older pseudoris; make its {LAST} again with this one")
        lacking = _lacking(site)
        if lacking:
            raise UsageError(
                f"{root}: {lacking} of {len(_plan(site))} parts of {LAST} {chain[LAST].version} are missing or do not hold "
                f"together; finish it first (pseudoris filter --work {root})"
            )
        if sites and _versions(sites[0]) != _versions(site):
            differing = [s for s in chain if _versions(site).get(s) != _versions(sites[0]).get(s)]
            raise UsageError(
                f"{root} was made with other settings than {sites[0].workspace.root}: {', '.join(differing)} differ. Make them "
                "with equal settings, or choose a version that both have with --from"
            )
        sites.append(site)
    return sites


def merge(out: Workspace, sites: Sequence[Site]) -> Merged:
    """Write the parts of all sites to a new work directory. UsageError if there is something already."""
    if out.root.exists() and (not out.root.is_dir() or any(out.root.iterdir())):
        raise UsageError(f"{out.root} exists and is not empty; merge into a new folder")
    out.create()
    stages = list(reversed(sites[0].chain))
    chain = {stage: _open(out, sites[0].chain[stage]) for stage in stages}
    plan = out.plan(chain[LAST].plan_name)
    merged, seen = Merged(), dict[bytes, str]()
    with ExitStack() as stack:
        writers = {stage: stack.enter_context(_writer(one)) for stage, one in chain.items()}
        for site in sites:
            manifests = {stage: one.manifest() for stage, one in site.chain.items()}
            own = _plan(site)
            for planned in own.parts:
                images = own.images(planned.part)
                plan.append_part([labelled(image, site.label) for image in images])
                written: dict[str, PartEntry] = {}
                for stage in stages:
                    written[stage] = _copy(site.label, stage, (planned.part, merged.parts), manifests, written, writers)
                for one in written[FIRST].images:
                    _note_duplicate(merged, seen, one.key, one.sha256)
                merged.parts += 1
                merged.images += len(images)
    for artifact in chain.values():
        out.settle(artifact)
    descriptions = {site.label: json.dumps(site.workspace.source(), sort_keys=True) for site in sites}
    out.set_source({"kind": "merged", "root": str(out.root.resolve()), "options": descriptions, "image_root": None})
    return merged


def _writer(artifact: Artifact) -> ManifestWriter:
    header = {name: value for name, value in artifact.header.items() if name != "resolved"}
    return ManifestWriter(artifact.folder, artifact.stage, "main", header)


def _copy(
    label: str,
    stage: str,
    numbers: tuple[int, int],
    manifests: dict[str, Manifest],
    written: dict[str, PartEntry],
    writers: dict[str, ManifestWriter],
) -> PartEntry:
    """Copy one part of a stage under its new number, with the label before every key."""
    old, new = numbers
    entry = manifests[stage].entries[old]
    columns = read_part(manifests[stage].path_of(entry), sha256=entry.file.sha256)
    for name in ("image_key", "file_name"):
        if name in columns:
            columns[name] = [f"{label}/{value}" for value in columns[name]]
    outcomes = [replace(one, key=f"{label}/{one.key}") for one in entry.images]
    above = upstream_of(stage, manifests)
    upstream = written[above].file.sha256 if above else None
    return writers[stage].commit(new, columns, outcomes, upstream, entry.notes, entry.seconds)


def _note_duplicate(merged: Merged, seen: dict[bytes, str], key: str, sha256: str | None) -> None:
    if sha256 is None:
        return
    first = seen.setdefault(bytes.fromhex(sha256)[:16], key)
    if first != key:
        merged.duplicate_images += 1
        if len(merged.duplicates) < MOST_NAMES:
            merged.duplicates.append((key, first))


def _open(out: Workspace, artifact: Artifact) -> Artifact:
    """The same version in the new directory."""
    record = {name: value for name, value in artifact.header.items() if name in _NOT_CONTENT - {"stage", "version"}}
    content = {name: value for name, value in artifact.header.items() if name not in _NOT_CONTENT}
    made = out.open_version(artifact.stage, content, record)
    if made.version != artifact.version:
        raise UsageError(f"{artifact.folder} was made by another pseudoris, and its version cannot be copied")
    return made


def labelled(image: ImageRef, label: str) -> ImageRef:
    """An image under the label of its work directory."""
    return replace(image, key=f"{label}/{image.key}", file_name=f"{label}/{image.file_name}")


def _plan(site: Site) -> Plan:
    return site.workspace.plan(site.chain[LAST].plan_name)


def _versions(site: Site) -> dict[str, str]:
    return {stage: artifact.version for stage, artifact in site.chain.items()}


def _lacking(site: Site) -> int:
    lineage = Lineage({stage: artifact.manifest() for stage, artifact in site.chain.items()})
    plan = _plan(site)
    return sum(lineage.entry(LAST, part.part) is None for part in plan.parts) if len(plan) else 1
