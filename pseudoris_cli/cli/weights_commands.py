"""`pseudoris weights list|fetch|verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.errors import MissingDependency

if TYPE_CHECKING:
    from pseudoris_cli.weights.download import Reporter

app = typer.Typer(help="Checkpoints: what is known, what is here, and getting the rest.", no_args_is_help=True)


@app.command("list")
def list_weights(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
    """List the registered checkpoints, and which of them are on this machine.

    Example: pseudoris weights list. Next: pseudoris weights fetch NAME
    """
    from pseudoris_cli.weights.fetch import rows

    found = rows()
    if as_json:
        typer.echo(json.dumps([{**asdict(row), "path": str(row.path)} for row in found], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    from pseudoris_cli.weights.registry import weights_home

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "here", "size", "licence", "purpose"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for row in found:
        size = f"{row.size / 1e6:,.0f} MB" if row.size else "?"
        table.add_row(row.name, "yes" if row.present else "no", size, row.licence, row.purpose)
    console = Console()
    console.print(table)
    console.print(
        f"\nfetched files lie in {weights_home()}, those of the Hugging Face hub in its cache", soft_wrap=True
    )


@app.command("fetch")
def fetch_weights(names: Annotated[list[str], typer.Argument(help="Registered names; see `weights list`.")]) -> None:
    """Fetch checkpoints, resuming what an earlier run began; what is there and intact is left alone.

    Example: pseudoris weights fetch sam_vit_h cutler_cascade coca_cc3m clip_rn50 en_core_web_lg. Next: pseudoris doctor
    """
    from pseudoris_cli.weights import fetch

    for name in names:
        fetch.require_entry(name)
    for name in names:
        with _shown(name) as reporter:
            path = fetch.fetch(name, reporter)
        typer.echo(f"{name}\t{path}")


@app.command("verify")
def verify_weights(
    names: Annotated[list[str] | None, typer.Argument(help="Registered names; default: all that are here.")] = None,
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
