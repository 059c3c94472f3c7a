"""`pseudoris weights list|fetch|verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.cli import completion
from pseudoris_cli.cli.console import note, size
from pseudoris_cli.cli.options import CommandGroup
from pseudoris_cli.cli.tables import Column, print_table, print_text
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.resolve import resolve as resolve_profile
from pseudoris_cli.weights.registry import weights_home

if TYPE_CHECKING:
    from pseudoris_cli.weights.download import Reporter
    from pseudoris_cli.weights.fetch import WeightsRow

app = typer.Typer(
    help="Checkpoints: what is known, what is here, and getting the rest.", no_args_is_help=True, cls=CommandGroup
)


@app.command("list")
def list_weights(
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Only what may be used commercially, with its conditions.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """List the registered checkpoints, and which of them are on this machine.

    Example: pseudoris weights list; for a product: pseudoris weights list --commercial. Next: pseudoris weights fetch NAME
    """
    from pseudoris_cli.weights.fetch import rows

    found = [row for row in rows() if not commercial or row.commercial in ("yes", "terms")]
    if as_json:
        typer.echo(json.dumps([{**asdict(row), "path": str(row.path)} for row in found], indent=2))
        return
    columns = [Column("name", right=False), Column("here", right=False), Column("size"), Column("licence", right=False)]
    table = [
        (
            row.name,
            "yes" if row.present else "no",
            size(row.size) if row.size else "?",
            row.licence,
            (row.rule or "no condition beyond the licence's notices") if commercial else row.purpose,
        )
        for row in found
    ]
    last = "conditions" if commercial else "purpose"
    print_table([*columns, Column(last, right=False, folds=True)], table)
    print_text("")
    if commercial:
        left = ", ".join(row.name for row in rows() if row not in found)
        print_text(
            f"left out, as their licences do not allow it: {left}\nour reading of the licences, which decide; not legal advice"
        )
    print_text(f"fetched files lie in {weights_home()}, those of the Hugging Face hub in its cache")


@app.command("fetch")
def fetch_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Registered names; see `weights list`.", autocompletion=completion.weights),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="all that this profile needs, e.g. paper", autocompletion=completion.profiles),
    ] = None,
) -> None:
    """Fetch checkpoints, resuming what an earlier run began; what is there and intact is left alone.

    Example: pseudoris weights fetch --profile paper; some: pseudoris weights fetch sam_vit_h clip_rn50. Next: pseudoris doctor
    """
    from pseudoris_cli.weights import fetch

    wanted = [*(names or []), *(fetch.needed(resolve_profile(profile).settings) if profile else [])]
    if not wanted and not profile:
        raise UsageError(
            "name what to fetch: --profile paper for all that it needs, or names of `pseudoris weights list`"
        )
    for name in wanted:
        fetch.require_entry(name)
    _announce([row for row in fetch.rows() if row.name in wanted], profile)
    for name in dict.fromkeys(wanted):
        with _shown(name) as reporter:
            path = fetch.fetch(name, reporter)
        typer.echo(f"{name}\t{path}")


def _announce(rows: list[WeightsRow], profile: str | None) -> None:
    """What will be fetched and how large it is together, on stderr."""
    missing = [row for row in rows if not row.present]
    if not missing:
        if profile:
            note(f"profile {profile}: " + ("all of its checkpoints are here" if rows else "it needs no checkpoint"))
        return
    unknown = [row.name for row in missing if row.size is None]
    total = sum(row.size or 0 for row in missing)
    beside = f", and {', '.join(unknown)}, whose size is not published" if unknown else ""
    here = f"; {len(rows) - len(missing)} of {len(rows)} are here already" if len(missing) < len(rows) else ""
    note(f"fetching {len(missing)}: {size(total)}{beside}{here}; into {weights_home()}")


@app.command("verify")
def verify_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Registered names; default: all that are here.", autocompletion=completion.weights),
    ] = None,
) -> None:
    """Read checkpoints from the disk again and compare their digests. Exit code 3 if one is wrong or missing.

    Example: pseudoris weights verify sam_vit_h
    """
    from pseudoris_cli.weights import fetch

    chosen = names or [row.name for row in fetch.rows() if row.present]
    bad = []
    for name in chosen:
        result = fetch.verify(name)
        typer.echo(f"{name}\t{result.state}\t{result.detail}")
        if result.state in ("wrong", "missing"):
            bad.append(name)
    if bad:
        raise MissingDependency(
            f"wrong or missing: {', '.join(bad)}\nfetch with:  pseudoris weights fetch {' '.join(bad)}"
        )


@contextmanager
def _shown(name: str) -> Iterator[Reporter]:
    """A progress bar on stderr, drawn from the first byte on; a library that draws its own leaves it unborn."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from pseudoris_cli.weights.download import Reporter

    console = Console(stderr=True)
    columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        bar = bars.add_task(name, total=None, visible=False)

        def progress(done: int, total: int | None) -> None:
            bars.update(bar, completed=done, total=total, visible=True)

        yield Reporter(progress, lambda text: console.print(text, style="yellow", highlight=False))
