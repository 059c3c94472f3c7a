"""`pseudoris status` and `pseudoris prune`."""

from __future__ import annotations

from typing import Annotated

import typer

from pseudoris_cli.cli.console import duration, err, out, print_json
from pseudoris_cli.cli.options import WorkOptions, with_options
from pseudoris_cli.errors import EnvironmentStop, UsageError


@with_options
def status(
    options: WorkOptions,
    failed: Annotated[bool, typer.Option("--failed", help="list failed and vanished images with the reason")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="read every part and check its digest; damaged ones are redone by the next run"),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Show what is done, pending and failed in every stage and version.

    Example: pseudoris status --failed
    """
    from pseudoris_cli import survey

    workspace = options.workspace
    if workspace.source() is None:
        raise UsageError(
            f"{workspace.root} is no work directory yet; begin with `pseudoris masks --images DIR`, or name --work"
        )
    if verify:
        bad = list(survey.verify(workspace))
        if as_json:
            print_json([{"stage": stage, "file": str(path), "verdict": verdict} for stage, path, verdict in bad])
        else:
            for stage, path, verdict in bad:
                typer.echo(f"{stage}\t{path}\t{verdict}")
        if bad:
            raise EnvironmentStop(
                f"{len(bad)} parts are damaged or missing; run their stages again, only these parts are redone"
            )
        if not as_json:
            out.print("all parts are whole")
        return
    if failed:
        rows = [(stage, image.key, image.status, image.error or "") for stage, image in survey.failures(workspace)]
        if as_json:
            print_json([dict(zip(("stage", "image_key", "status", "error"), row, strict=True)) for row in rows])
        for row in rows if not as_json else []:
            typer.echo("\t".join(row))  # not through rich, which would expand the tabs
        return
    states = list(survey.states(workspace))
    if as_json:
        print_json(
            {"work": str(workspace.root), "source": workspace.source(), "versions": [survey.as_json(s) for s in states]}
        )
    else:
        _show(states, workspace.root, workspace.source() or {})


def _show(states: list, root: object, source: dict) -> None:
    from rich.table import Table

    out.print(f"{root}: {source.get('kind')} {source.get('root')}", markup=False)
    statuses = [
        name for name in ("done", "empty", "failed", "gone") if name == "done" or any(s.counts[name] for s in states)
    ]
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "version", *statuses, "pending", "parts", "rows", "size", "rate"):
        table.add_column(heading, justify="left" if heading in ("stage", "version") else "right", no_wrap=True)
    for state in states:
        rate = f"{state.images_per_second:.3g} img/s" if state.images_per_second else ""
        left = f", {duration(state.seconds_left)} left" if state.seconds_left else ""
        table.add_row(
            state.stage,
            state.version + (" *" if state.current else ""),
            *(f"{state.counts[name]:,}" for name in statuses),
            f"{state.pending:,}",
            f"{state.parts:,}/{state.parts_planned:,}",
            f"{state.rows:,}",
            f"{state.bytes / 1e6:.1f} MB",
            rate + left,
        )
    out.print(table)
    out.print("* the version last run; later stages use it unless --from names another", markup=False)
    for state in states:
        if state.current and state.last_error:
            out.print(
                f"last error in {state.stage}: {state.last_error}   (all: pseudoris status --failed)", markup=False
            )


@with_options
def prune(
    options: WorkOptions,
    yes: Annotated[bool, typer.Option("--yes", help="delete without asking")] = False,
) -> None:
    """List what nothing refers to any more (old versions, superseded parts) and delete it after asking.

    Example: pseudoris prune --yes
    """
    from pseudoris_cli import survey

    found = list(survey.garbage(options.workspace))
    if not found:
        out.print("nothing to prune")
        return
    for path, why in found:
        out.print(f"{survey.size_of(path) / 1e6:10.1f} MB  {path}  ({why})", markup=False)
    if not yes and not typer.confirm(f"Delete these {len(found)}?", err=True):
        err.print("nothing deleted")
        return
    for path, _ in found:
        survey.remove(path)
    out.print(f"deleted {len(found)}", markup=False)
