"""`pseudoris status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.cli.console import out, print_json
from pseudoris_cli.cli.filter_table import listener_text
from pseudoris_cli.cli.options import WorkOptions, existing_workspace, with_options
from pseudoris_cli.cli.status_table import MARK, print_states
from pseudoris_cli.cli.tables import print_text
from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage import left_out
from pseudoris_cli.text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from pseudoris_cli.storage.status import VersionState


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

    Versions stand in the order in which they were begun, each with what differs from the one before; * marks the current
    ones. `images` are those answered, of those planned: done, empty (no object found), failed or gone (vanished from the
    source). `img/s` is the rate of the last parts, `left` the time that the others need at that rate.

    Example: pseudoris status; why images failed: pseudoris status --failed; a check of every byte: pseudoris status --verify
    """
    from pseudoris_cli.storage.status import failures, verify_parts, version_states

    workspace = existing_workspace(options)
    if verify:
        bad = list(verify_parts(workspace))
        if as_json:
            print_json([{"stage": stage, "file": str(path), "verdict": verdict} for stage, path, verdict in bad])
        else:
            for stage, path, verdict in bad:
                typer.echo("\t".join((stage, visible(str(path), ""), verdict)))
        if bad:
            raise EnvironmentStop(
                f"{len(bad)} parts are damaged or missing; run their stages again, only these parts are redone"
            )
        if not as_json:
            out.print("all parts are intact")
        return
    if failed:
        rows = [(stage, image.key, image.status, image.error or "") for stage, image in failures(workspace)]
        if as_json:
            print_json([dict(zip(("stage", "image_key", "status", "error"), row, strict=True)) for row in rows])
        for row in rows if not as_json else []:
            typer.echo("\t".join(visible(cell, "") for cell in row))  # not through rich, which would expand the tabs
        return
    states = list(version_states(workspace))
    if as_json:
        print_json(
            {
                "work": str(workspace.root),
                "source": workspace.source(),
                "left_out": left_out.load(workspace.root),
                "versions": [_as_json(s) for s in states],
            }
        )
    else:
        _show(states, workspace.root, workspace.source() or {})


def _as_json(state: VersionState) -> dict[str, Any]:
    """A state for machines; the notes of a filter's parts are added up to its summary."""
    from pseudoris_cli.execution.runner import left_out as left_out_of
    from pseudoris_cli.stages.filter import figures

    values = {name: getattr(state, name) for name in state.__dataclass_fields__ if name != "notes"}
    values["differs"] = [asdict(one) for one in state.differs]
    return values | {
        "summary": figures(state.notes) if state.stage == "filter" else None,
        "left_out": left_out_of(state.notes),
    }


def _listener(state: VersionState) -> str:
    """What the listener of a filter's version said; empty where nobody was asked."""
    from pseudoris_cli.stages.filter import figures

    heard = (figures(state.notes) or {}).get("listener")
    return listener_text(heard) if heard else ""


def _show(states: list[VersionState], root: Path, source: dict[str, Any]) -> None:
    from pseudoris_cli.execution.runner import left_out as left_out_of

    out.print(f"{root}: {source.get('kind')} {source.get('root')}", markup=False)
    for line in left_out.described(root):
        out.print(line, markup=False)
    if not states:
        out.print("nothing is made yet; next: pseudoris masks", markup=False)
        return
    print_states(states)
    print_text(
        f"{MARK} current: later stages take it. Below a version stands what differs from the one begun before it "
        "(pseudoris diff A B; pseudoris use STAGE VERSION makes one current)"
    )
    for state in states:
        for kind, count in left_out_of(state.notes if state.current else ()).items():
            out.print(f"left out of the annotations of {state.stage}: {count:,} {kind}", markup=False)
        if state.current and state.stage == "filter" and (told := _listener(state)):
            print_text(told)
        if state.current and state.last_error:
            out.print(
                f"last error in {state.stage}: {state.last_error}   (all: pseudoris status --failed)", markup=False
            )
