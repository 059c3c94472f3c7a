"""`pseudoris report`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pseudoris_cli.cli.console import err, note, out
from pseudoris_cli.cli.options import WorkOptions, from_option, with_options
from pseudoris_cli.errors import UsageError

if TYPE_CHECKING:
    from pseudoris_cli.evaluation.metrics import Evaluation
    from pseudoris_cli.report.choosing import ImageChoice
    from pseudoris_cli.report.writer import Progress
    from pseudoris_cli.storage.workspace import Workspace

DEFAULT_NAME = "report.html"


@with_options
def report(
    options: WorkOptions,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="the HTML file  [default: report.html in the work directory]")
    ] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="show this many images, spread over the source  [default: 50]")
    ] = None,
    worst: Annotated[
        int | None, typer.Option(min=1, help="show the images with the lowest median DoC of what was kept")
    ] = None,
    best: Annotated[int | None, typer.Option(min=1, help="show the images with the highest")] = None,
    search: Annotated[
        str | None, typer.Option(help="show images with a caption that contains this text (at most --sample)")
    ] = None,
    ids: Annotated[str | None, typer.Option(metavar="KEY[,KEY...]", help="show these images, by image_key")] = None,
    from_version: Annotated[str | None, from_option("a version of any stage  [default: last worked on]")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="add the curves of `pseudoris evaluate` against this truth.json")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False,
) -> None:
    """Write one HTML file to look at: images with masks, every candidate with its scores and fate, charts, origin.

    Works after any stage, and needs no network, neither to write nor to read.

    Example: pseudoris report --worst 20
    """
    from pseudoris_cli.report.versions import find_version
    from pseudoris_cli.report.writer import write_report

    choice = _choice(sample, worst, best, search, ids)
    workspace = options.workspace
    start = find_version(workspace, from_version) if from_version else None
    evaluation = _evaluated(workspace, truth) if truth else None
    with progress_shown(quiet) as progress:
        path = write_report(workspace, out_file or workspace.root / DEFAULT_NAME, choice, start, progress, evaluation)
    if not quiet:
        note(f"{path.stat().st_size / 1e6:.1f} MB, opens in any browser")
    out.print(str(path), markup=False)


def _evaluated(workspace: Workspace, truth: Path) -> Evaluation:
    from pseudoris_cli.evaluation.workspace import evaluate_workspace

    found = evaluate_workspace(workspace, truth)
    if not found.curves:
        raise UsageError(
            f"--truth {truth}: nothing to draw; curves need scored captions and a truth whose expressions are known (that of "
            "rendered scenes). `pseudoris evaluate` measures masks against other truths"
        )
    return found


def _choice(
    sample: int | None, worst: int | None, best: int | None, search: str | None, ids: str | None
) -> ImageChoice:
    from pseudoris_cli.report.choosing import DEFAULT_COUNT, ImageChoice

    flags = {"--worst": worst, "--best": best, "--search": search, "--ids": ids}
    given = [name for name, value in flags.items() if value is not None]
    if len(given) > 1 or (sample and given and given != ["--search"]):
        named = [*(["--sample"] if sample else []), *given]
        raise UsageError(f"{' and '.join(named)} choose images in different ways; give one of them")
    if ids is not None:
        keys = tuple(key for key in ids.split(",") if key)
        if not keys:
            raise UsageError("--ids is empty; name images as they appear in the column image_key")
        return ImageChoice(len(keys), keys=keys)
    if search is not None:
        if not search.strip():
            raise UsageError("--search is empty; give a word or more that a caption contains")
        return ImageChoice(sample or DEFAULT_COUNT, search=search)
    if worst or best:
        return ImageChoice(worst or best or DEFAULT_COUNT, "worst" if worst else "best")
    return ImageChoice(sample or DEFAULT_COUNT)


def report_on_pilot(workspace: Workspace, plan_name: str, quiet: bool) -> Path:
    """The report of the pilot versions that were just made, with every image of them."""
    from pseudoris_cli.report.choosing import ImageChoice
    from pseudoris_cli.report.writer import write_report
    from pseudoris_cli.storage.plan import pilot_of

    with progress_shown(quiet) as progress:
        path = workspace.root / f"report-{pilot_of(plan_name)}.html"
        choice = ImageChoice(workspace.plan(plan_name).image_count)
        return write_report(workspace, path, choice, workspace.latest("masks", plan=plan_name), progress)


@contextmanager
def progress_shown(quiet: bool) -> Iterator[Progress]:
    """What is being done, on stderr and only on a terminal."""
    if quiet or not err.is_terminal:
        yield lambda what, done, total: None
        return
    with err.status("report") as status:
        yield lambda what, done, total: status.update(f"report: {what} {done:,}/{total:,}")
