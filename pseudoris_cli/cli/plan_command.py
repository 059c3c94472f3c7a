"""`pseudoris plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from pseudoris_cli.cli.console import configure_logging, note, out, print_json
from pseudoris_cli.cli.options import SettingOptions, SourceOptions, WorkOptions, with_options
from pseudoris_cli.cli.session import remember_source


@dataclass
class PlanOptions(SettingOptions, WorkOptions):
    """Where, with which size of part, and how it is told."""

    limit: Annotated[
        int | None, typer.Option(min=1, help="plan at most this many images; later runs go on from there")
    ] = None
    json_output: Annotated[bool, typer.Option("--json", help="result as JSON on stdout")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only errors on stderr; results stay on stdout")] = False


@with_options
def plan(options: PlanOptions, source: SourceOptions) -> None:
    """List the images and cut them into parts, nothing else: no network is loaded, no checkpoint needed.

    Do it once before a job array, so that every shard starts at once. `masks` does it itself otherwise. Of tars and Parquet files
    it makes the index.

    Example: pseudoris plan --images 'data/{00000..00331}.tar'. Next: pseudoris masks --shard 0/16
    """
    from pseudoris_cli.pipeline.planning import extend_plan
    from pseudoris_cli.storage import left_out
    from pseudoris_cli.storage.plan import PLAN
    from pseudoris_cli.storage.remembered import recall

    configure_logging(options.quiet)
    resolved = options.resolve(base=recall(options.workspace, "masks", PLAN))
    remember_source(options.workspace, source, options.quiet)
    planned, new = extend_plan(options.workspace, resolved.settings, limit=options.limit)
    passed_over = left_out.load(options.workspace.root)
    if options.json_output:
        print_json({"images": planned.image_count, "new": new, "parts": len(planned), "left_out": passed_over})
        return
    out.print(f"{planned.image_count:,} images in {len(planned):,} parts, {new:,} of them new", markup=False)
    for line in left_out.described(options.workspace.root):
        note(line)
    if not options.quiet:
        note("next: pseudoris masks; with a job array pseudoris masks --shard i/n")
