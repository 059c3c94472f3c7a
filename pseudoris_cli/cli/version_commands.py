"""`pseudoris use` and `pseudoris prune`: which versions count, and which may go."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pseudoris_cli.cli.console import err, note, out, size
from pseudoris_cli.cli.options import WorkOptions, existing_workspace, with_options
from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage.stage_table import NAMES
from pseudoris_cli.storage.stage_table import stage as stage_row
from pseudoris_cli.text import nearest

if TYPE_CHECKING:
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
def prune(
    options: WorkOptions,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
) -> None:
    """List what nothing refers to any more (old versions, superseded parts) and delete it after asking.

    Kept are the versions that `current` names (* in `pseudoris status`) and all that they were made from. What is
    deleted can be made again, but not brought back; a version that a run is writing is never touched.

    Example: pseudoris prune; without questions: pseudoris prune --yes
    """
    from pseudoris_cli.storage.status import remove_unreferenced, size_of, unreferenced

    found = list(unreferenced(existing_workspace(options)))
    if not found:
        out.print("nothing to prune")
        return
    for path, why in found:
        out.print(f"{size(size_of(path)):>10}  {path}  ({why})", markup=False)
    if not yes and not sys.stdin.isatty():
        raise UsageError("nothing deleted: there is no terminal to ask on; --yes deletes without asking")
    if not yes and not typer.confirm(f"Delete these {len(found)}?", err=True):
        err.print("nothing deleted")
        return
    for path, _ in found:
        remove_unreferenced(path)
    out.print(f"deleted {len(found)}", markup=False)
