"""`pseudoris use`, `diff` and `prune`: which versions count, how they differ, and which may go."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.cli.console import err, note, out, print_json, size
from pseudoris_cli.cli.options import WorkOptions, existing_workspace, with_options
from pseudoris_cli.cli.status_table import date_of, differences_text
from pseudoris_cli.cli.tables import Column, print_table, print_text
from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.stage_table import stage as stage_row
from pseudoris_cli.text import nearest

if TYPE_CHECKING:
    from pseudoris_cli.storage.comparison import Comparison, KeptCaptions
    from pseudoris_cli.storage.status import VersionState
    from pseudoris_cli.storage.workspace import Workspace


def complete_stage(ctx: typer.Context, incomplete: str) -> list[str]:
    """The stages that have versions here."""
    workspace = _workspace_of(ctx)
    return [
        name for name in NAMES if name.startswith(incomplete) and any(workspace.root.glob(f"{name}/*/artifact.json"))
    ]


def complete_version(ctx: typer.Context, incomplete: str) -> list[str]:
    """The versions of the stage that was named, or of all."""
    workspace = _workspace_of(ctx)
    stages = [ctx.params["stage"]] if ctx.params.get("stage") in NAMES else NAMES
    found = [path.parent.name for stage in stages for path in workspace.root.glob(f"{stage}/*/artifact.json")]
    return sorted(name for name in found if name.startswith(incomplete))


def _workspace_of(ctx: typer.Context) -> Workspace:
    return WorkOptions(ctx.params.get("work")).workspace


@with_options
def use(
    options: WorkOptions,
    stage: Annotated[str, typer.Argument(help=", ".join(NAMES), autocompletion=complete_stage)],
    version: Annotated[
        str, typer.Argument(help="a version, or its first digits (`pseudoris status`)", autocompletion=complete_version)
    ],
) -> None:
    """Make a version current: later stages, `export`, `report` and `evaluate` then take it.

    With it go the versions that it was made from and, of the stages after it, the newest finished ones made from it; and
    its settings are those that later commands start from.

    Example: pseudoris use captions 1345. Next: pseudoris filter
    """
    from pseudoris_cli.storage.remembered import remember_versions
    from pseudoris_cli.storage.versions import choose

    workspace = existing_workspace(options)
    if stage not in NAMES:
        raise UsageError(f"there is no stage {stage!r}; choose from {', '.join(NAMES)}{nearest(stage, NAMES)}")
    artifact = workspace.find(stage, version)
    chosen = choose(workspace, artifact)
    remember_versions(workspace, chosen)
    for name, one in chosen.items():
        pilot = "" if one.plan_name == "plan.jsonl" else " (of the pilot)"
        out.print(f"{name} {one.version}{pilot}", markup=False)
    if not workspace.is_complete(artifact):
        note(f"{stage} {artifact.version} is unfinished; `pseudoris {stage_row(stage).command}` goes on with it")
    for name in NAMES[NAMES.index(stage) + 1 :]:
        kept = workspace.current(name, artifact.plan_name)
        if kept and name not in chosen:
            note(
                f"{name} {kept} stays current, but was not made from {stage} {artifact.version}; "
                f"next: pseudoris {stage_row(name).command}"
            )
            break


@with_options
def diff(
    options: WorkOptions,
    before: Annotated[
        str, typer.Argument(metavar="A", help="a version, or its first digits", autocompletion=complete_version)
    ],
    after: Annotated[
        str, typer.Argument(metavar="B", help="another one of the same stage", autocompletion=complete_version)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Compare two versions of a stage: settings, counts, and the kept captions that B has gained and lost against A.

    Kept captions are those of the filter that a version was made from, or that was made from it; images that both have.

    Example: pseudoris diff dd3f 53b1
    """
    from pseudoris_cli.storage.comparison import compare, find_any

    workspace = existing_workspace(options)
    found = compare(workspace, find_any(workspace, before), find_any(workspace, after))
    if as_json:
        print_json(_plain(found))
        return
    for name, state in (("A", found.before), ("B", found.after)):
        mark = ", current" if state.current else ""
        pilot = f", pilot of {state.images:,} images" if state.pilot else ""
        print_text(f"{name}: {state.stage} {state.version}, begun {date_of(state)}{mark}{pilot}")
    print_text("settings: " + (differences_text(found.differs, len(found.differs)) or "the same"))
    print_table(
        [Column("", right=False), Column("A"), Column("B")],
        _counts(found.before, found.after),
    )
    _print_kept(found.kept)


def _counts(before: VersionState, after: VersionState) -> list[list[str]]:
    answered = ["images answered", *(f"{s.images - s.pending:,}/{s.images:,}" for s in (before, after))]
    rows = [[name, f"{before.counts[name]:,}", f"{after.counts[name]:,}"] for name in before.counts]
    return [answered, *rows, ["rows", f"{before.rows:,}", f"{after.rows:,}"]]


def _print_kept(kept: KeptCaptions | None) -> None:
    if kept is None:
        print_text(
            "kept captions: not compared, as one of the two was never filtered (next: pseudoris filter --from VERSION)"
        )
        return
    each = "" if kept.by_mask else "; the masks differ, so a caption counts once an image, whichever mask has it"
    print_text(
        f"kept captions (filter {kept.before_filter} and {kept.after_filter}, {kept.images:,} images{each}): "
        f"{kept.both:,} in both, {kept.gained:,} gained, {kept.lost:,} lost"
    )
    for mark, examples in (("+", kept.gained_examples), ("-", kept.lost_examples)):
        for key, mask, caption in examples:
            print_text(f"  {mark} {key}{'' if mask is None else f' mask {mask}'}: {caption}")


def _plain(found: Comparison) -> dict[str, Any]:
    """A comparison for machines."""
    sides = {}
    for name, state in (("a", found.before), ("b", found.after)):
        values = asdict(state)
        sides[name] = {key: values[key] for key in values if key not in ("notes", "differs")}
    return {
        **sides,
        "differs": [asdict(one) for one in found.differs],
        "kept": asdict(found.kept) if found.kept else None,
    }


@with_options
def prune(
    options: WorkOptions,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list only, delete nothing and ask nothing")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
) -> None:
    """List what nothing refers to any more (old versions, pilots, superseded parts) and delete it after asking.

    Kept are the current versions (* in `pseudoris status`), those at work, the fullest of each stage, and all that they
    were made from. What is deleted can be made again, but not brought back; a version that a run is writing is never
    touched.

    Example: pseudoris prune --dry-run; without questions: pseudoris prune --yes
    """
    from pseudoris_cli.storage.status import remove_unreferenced, size_of, unreferenced

    workspace = existing_workspace(options)
    found = list(unreferenced(workspace))
    if not found:
        out.print("nothing to prune")
        return
    for path, why in found:
        print_text(f"{size(size_of(path)):>10}  {path}  ({why})")
        if (path / "artifact.json").exists():
            print_text(f"            {_described(workspace, path.parent.name, path.name)}")
    if dry_run:
        total = sum(size_of(path) for path, _ in found)
        print_text(f"{len(found)} to delete, {size(total)}; nothing deleted (--dry-run)")
        return
    if not yes and not sys.stdin.isatty():
        raise UsageError("nothing deleted: there is no terminal to ask on; --yes deletes without asking")
    if not yes and not typer.confirm(f"Delete these {len(found)}?", err=True):
        err.print("nothing deleted")
        return
    for path, _ in found:
        remove_unreferenced(path)
    out.print(f"deleted {len(found)}", markup=False)


def _described(workspace: Workspace, stage: str, version: str) -> str:
    """What a version holds, and in what it differs from the current one of its stage."""
    from pseudoris_cli.storage.status import state_of
    from pseudoris_cli.storage.versions import differences

    artifact = workspace.artifact(stage, version)
    state = state_of(workspace, artifact)
    told = f"{state.images - state.pending:,} of {state.images:,} images, {state.rows:,} rows, begun {date_of(state)}"
    if current := workspace.current(stage):
        changes = differences(workspace.artifact(stage, current), artifact)
        told += f"; current {current} → this: {differences_text(changes) or 'the same'}"
    return told
