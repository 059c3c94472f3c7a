"""`pseudoris demo` and `pseudoris evaluate`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pseudoris_cli.cli.console import note, out, print_json
from pseudoris_cli.cli.options import SourceOptions, StageOptions, WorkOptions, with_options
from pseudoris_cli.cli.report_command import progress_shown
from pseudoris_cli.cli.session import open_session, remember_source
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.storage.files import os_errors_as_stop

CAPTION_RUNS: tuple[tuple[str, list[str]], ...] = (
    ("plain sampling", ["captions.contrast=0"]),
    ("distinctive sampling, literal contrast", ["captions.contrast_form=literal"]),
    ("distinctive sampling", []),
)
"""How captions are sampled. The last one is the demo profile itself."""
_HEARD = ["filter.judge.backend=listener_demo", "filter.judge.min_doc=-1", "filter.judge.ask_per_mask=64"]
SELECTIONS: tuple[list[str], ...] = ([], [*_HEARD, "filter.min_doc=-1"], _HEARD)
"""How they are selected: by DoC, by the listener, by both. All are asked, so that the selections can be compared; the last of
both lists is what `current` names afterwards."""


def demo(
    scenes: Annotated[int, typer.Option(min=1, help="scenes to render")] = 24,
    out_folder: Annotated[Path, typer.Option("--out", help="folder for everything it makes")] = Path("pseudoris-demo"),
    as_json: Annotated[bool, typer.Option("--json", help="figures as JSON on stdout")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Run everything offline on rendered scenes with the networks in this package, and measure it against the truth.

    Example: pseudoris demo --scenes 24 --out pseudoris-demo
    """
    started = time.monotonic()
    from pseudoris_cli.evaluation.truth import write_scenes
    from pseudoris_cli.evaluation.workspace import evaluate_workspace
    from pseudoris_cli.report.choosing import ImageChoice
    from pseudoris_cli.report.writer import write_report

    if not quiet:
        note(f"rendering {scenes} scenes whose every object is known, into {out_folder / 'scenes'}")
    with os_errors_as_stop(out_folder):
        truth = write_scenes(out_folder / "scenes", "demo", scenes)
    options = StageOptions(work=out_folder / "work", profile="demo", device="cpu", quiet=quiet)
    run_demo(options, out_folder)
    evaluation = evaluate_workspace(options.workspace, truth)
    with progress_shown(quiet) as progress:
        page = write_report(options.workspace, out_folder / "report.html", ImageChoice(), None, progress, evaluation)
    if as_json:
        print_json(evaluation.to_json())
        return
    from pseudoris_cli.cli.evaluation_table import print_evaluation

    print_evaluation(evaluation)
    out.print(f"scenes and truth   {out_folder / 'scenes'}", markup=False)
    out.print(
        f"artifacts          {out_folder / 'work'}   (pseudoris status --work {out_folder / 'work'})", markup=False
    )
    out.print(f"refcoco files      {out_folder / 'export'}", markup=False)
    out.print(f"report             {page}", markup=False)
    if not quiet:
        note(f"done in {time.monotonic() - started:.0f} s")


def run_demo(options: StageOptions, out_folder: Path) -> None:
    """The stages through the ordinary path: captions three times (the paper's ablation in small), each selected by DoC, by the
    listener and by both; one export."""
    from pseudoris_cli.pipeline import chain, exporting, running

    remember_source(options.workspace, SourceOptions(images=str(out_folder / "scenes")))
    with open_session(options, resolve("demo", assignments=SELECTIONS[-1])) as session:
        running.run_masks(session)
        for what, sampling in CAPTION_RUNS:
            if not options.quiet:
                note(what)
            for selection in SELECTIONS:
                varied = replace(session, settings=resolve("demo", assignments=[*sampling, *selection]).settings)
                for command in chain.commands_between("masks", "export"):
                    running.run_command(varied, command)
        running.run_command(session, "export")
        exporting.render_export(session, out_folder / "export", ("refcoco",), "copy", overwrite=False)


@with_options
def evaluate(
    options: WorkOptions,
    truth: Annotated[Path, typer.Option(help="truth.json of rendered scenes, or a COCO instances file (masks only)")],
    pilot: Annotated[bool, typer.Option("--pilot", help="measure the last pilot, on its own images")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Measure masks and expressions of a work directory against a known truth, with 95 % bootstrap intervals.

    Only images that both have are measured; how many those are is said.

    Example: pseudoris evaluate --work pseudoris-demo/work --truth pseudoris-demo/scenes/truth.json
    """
    from pseudoris_cli.cli.evaluation_table import print_evaluation
    from pseudoris_cli.evaluation.workspace import evaluate_workspace

    workspace = options.workspace
    evaluation = evaluate_workspace(workspace, truth, workspace.last_pilot() if pilot else None)
    if as_json:
        print_json(evaluation.to_json())
    else:
        print_evaluation(evaluation, intervals=True)
