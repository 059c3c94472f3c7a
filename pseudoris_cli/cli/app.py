"""The Typer application: every command, nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from pseudoris_cli import __version__
from pseudoris_cli.cli import (
    config_commands,
    demo_commands,
    listener_command,
    merge_command,
    plan_command,
    report_command,
    stage_commands,
    status_command,
    version_commands,
    weights_commands,
)
from pseudoris_cli.cli.options import CommandGroup, StageCommand
from pseudoris_cli.storage.stage_table import commands

WIDEST_HELP = 160
"""Columns of a help text at most, in a wider terminal; lines that are longer are hard to read."""

app = typer.Typer(
    name="pseudoris",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST_HELP},
    cls=CommandGroup,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pseudoris {__version__}")
        raise typer.Exit


@app.callback()
def pseudoris(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Turn unlabeled images into training data for referring image segmentation.

    Four stages, each resumable: masks, captions, filter, export; `run` does all of them.
    First look without any download: pseudoris demo.
    """


for command in (
    stage_commands.masks,
    stage_commands.captions,
    stage_commands.filter,
    stage_commands.export,
    stage_commands.run,
):
    app.command(cls=StageCommand)(command)
for name in commands():
    if name not in ("masks", "captions", "filter", "export"):
        app.command(name, cls=StageCommand)(stage_commands.other_stage(name))
app.command()(demo_commands.demo)
app.command()(demo_commands.evaluate)
app.command()(report_command.report)
app.command()(status_command.status)
app.command()(version_commands.use)
app.command()(version_commands.diff)
app.command()(version_commands.prune)
app.command()(plan_command.plan)
app.command("train-listener")(listener_command.train_listener)
app.command()(merge_command.merge)
app.add_typer(weights_commands.app, name="weights")
app.add_typer(config_commands.app, name="config")
app.command()(config_commands.doctor)
