"""`pseudoris train-listener`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pseudoris_cli.cli import completion
from pseudoris_cli.cli.console import configure_logging, err, note, out, print_json
from pseudoris_cli.cli.options import WorkOptions, from_option, with_options
from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.storage.files import os_errors_as_stop

if TYPE_CHECKING:
    from pseudoris_cli.self_training.folds import Progress as Told
    from pseudoris_cli.self_training.folds import SelfTrained
    from pseudoris_cli.self_training.labels import Progress as Reading


@dataclass
class TrainingOptions(WorkOptions):
    """How long, on how many images, and where."""

    steps: Annotated[int, typer.Option(min=1, help="steps of each of the two networks")] = 1500
    max_images: Annotated[
        int, typer.Option(min=1, help="images to learn from at most, drawn at random; each takes about 70 kB of memory")
    ] = 20_000
    seed: Annotated[int, typer.Option(min=0, help="seed of weights and batches")] = 0
    gpu: Annotated[int | None, typer.Option(help="CUDA device")] = None
    device: Annotated[
        str | None,
        typer.Option(help="cpu, mps, cuda:N  [default: first GPU, else CPU]", autocompletion=completion.devices),
    ] = None
    json_output: Annotated[bool, typer.Option("--json", help="result as JSON on stdout")] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="only errors on stderr; results stay on stdout")] = False


@with_options
def train_listener(
    options: TrainingOptions,
    from_version: Annotated[
        str | None, from_option("version of filter whose captions teach  [default: current]")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="the weights  [default: listener-VERSION.safetensors in the work directory]"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="train again where the file exists")] = False,
) -> None:
    """Train a small listener on the captions that you have kept, to judge by: it needs no other model, and no truth.

    The mask for which a caption was made is what it means; the other masks of the image are the wrong answers. Two networks
    learn from one half of the images each, and judge the other half. A stop before the end leaves nothing. How much it is worth
    depends on your images: compare before you trust it (docs/vlm.md).

    Example: pseudoris train-listener --gpu 0. Next: the filter command that it prints
    """
    configure_logging(options.quiet)
    workspace = options.workspace
    kept = workspace.latest("filter", from_version)
    path = (out_file or workspace.root / f"listener-{kept.version}.safetensors").absolute()
    if path.exists() and not (overwrite and _is_ours(path)):
        raise UsageError(
            f"{path} is not a listener that pseudoris trained; give another --out"
            if not _is_ours(path)
            else f"{path} is there already; --overwrite trains it again, --out takes another name"
        )
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}; make it, or give another --out")
    from pseudoris_cli.self_training.folds import train_folds
    from pseudoris_cli.self_training.labels import read_labels
    from pseudoris_cli.self_training.trainer import Run

    run = Run(options.steps, options.seed, DeviceRequest(options.gpu, options.device).resolve())
    with _shown(options.quiet, options.steps) as (reading, learning):
        labels = read_labels(workspace, kept, options.max_images, options.seed, reading)
        with os_errors_as_stop(path.parent):
            made = train_folds(labels, path, run, kept.version, learning)
    _tell(options, made, labels.usable, labels.unreadable)


def _is_ours(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    from pseudoris_cli.backends.scene_listening import ABOUT

    try:
        with safe_open(path, "np") as file:
            return ABOUT in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


@contextmanager
def _shown(quiet: bool, steps: int) -> Iterator[tuple[Reading, Told]]:
    """Progress of reading and of learning: a bar on a terminal, a line now and then elsewhere."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
    with Progress(*columns, TimeRemainingColumn(), console=err, disable=quiet or not err.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}
        last = time.monotonic()

        def show(what: str, done: float, total: float) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        def learning(fold: int, step: int, cost: float) -> None:
            nonlocal last
            show(f"learning, half {fold + 1} of 2", step, steps)
            if not quiet and not err.is_terminal and time.monotonic() - last > 30:
                last = time.monotonic()
                note(f"half {fold + 1} of 2: step {step:,} of {steps:,}, cost {cost:.3f} on images not learned from")

        yield show, learning


def _tell(options: TrainingOptions, made: SelfTrained, usable: int, unreadable: dict[str, str]) -> None:
    if options.json_output:
        print_json(
            {
                "checkpoint": str(made.path),
                "images": made.images,
                "captions": made.captions,
                "words": made.words,
                "unreadable": unreadable,
                "held_out": {"right": made.right, "chance": made.chance},
                "steps": [one.step for one in made.folds],
            }
        )
        return
    if usable > made.images + len(unreadable):
        note(f"learned from {made.images:,} of {usable:,} images, drawn at random; --max-images takes more")
    if unreadable:
        key, reason = next(iter(unreadable.items()))
        note(f"left out {len(unreadable):,} images that cannot be read any more, e.g. {key}: {reason}")
    out.print(
        f"{made.path}: learned from {made.captions:,} captions of {made.images:,} images, {made.words:,} words",
        markup=False,
    )
    out.print(
        f"on images not learned from it picks the mask that a caption was made for in {100 * made.right:.1f} % "
        f"(guessing: {100 * made.chance:.1f} %)",
        markup=False,
    )
    work = "" if options.work is None else f" --work {options.work}"
    out.print(
        f"next: pseudoris filter{work} --set filter.judge.backend=listener_self --set filter.judge.checkpoint={made.path}",
        markup=False,
    )
