"""How good the embedded default is, on scenes used neither in training nor in choosing settings.

    python benchmarks/demo_quality.py [--scenes 200] [--split evaluation] [--min-doc 1 1.2] [--set a.b=c ...]

Runs the stages' own workers over rendered scenes: masks once, then captions and scores for plain sampling, the literal
contrast and the scale-preserving contrast, and prints every figure of `pseudoris_cli.evaluation.metrics` with its 95 %
bootstrap interval over scenes. `--split tune` is for choosing settings. `--out FILE` also writes everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from pseudoris_cli.demo.world import Split, render_scene, scene_seed
from pseudoris_cli.evaluation.metrics import CAPTION_FIGURES, CaptionRun, Evaluation, evaluate
from pseudoris_cli.evaluation.resampling import Figure
from pseudoris_cli.evaluation.truth import KnownImage, known_scene
from pseudoris_cli.execution.devices import DeviceRequest
from pseudoris_cli.execution.tasks import ImageReading, LoadedImage, NetworkContext, PartInput, PartTask, Worker
from pseudoris_cli.method.selection import select
from pseudoris_cli.records import ImageRef
from pseudoris_cli.settings.models import FilterSettings
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.sources.base import Stamp
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.stages import captions, masks, scores
from pseudoris_cli.storage.rows import join
from pseudoris_cli.storage.schema import Columns

_SCORES = ("correctness", "uniqueness", "doc")
METHODS: dict[str, tuple[str, ...]] = {
    "plain": ("captions.contrast=0",),
    "distinctive, literal": ("captions.contrast_form=literal",),
    "distinctive, scale-preserving": ("captions.contrast_form=scale_preserving",),
}


class Scenes:
    """Rendered scenes as the stages see them, with their truth."""

    def __init__(self, split: Split, numbers: Sequence[int]) -> None:
        self.truth: list[KnownImage] = []
        self.images: list[LoadedImage] = []
        for index in numbers:
            scene = render_scene(scene_seed(split, index))
            ref = ImageRef(f"{index:06d}.png", index, f"{index:06d}.png")
            self.images.append(LoadedImage(ref, scene.image_rgb, Stamp(0, 0), ""))
            self.truth.append(known_scene(ref.key, scene))

    def run(self, worker: Worker, **columns: Columns) -> Columns:
        """One stage over all scenes; scenes that the stage before found nothing in are left out."""
        images = self.images
        if columns:
            present = set(columns["masks"]["image_key"])
            images = [image for image in images if image.ref.key in present]
        refs = tuple(image.ref for image in images)
        task = PartTask(0, refs, frozenset(ref.key for ref in refs), {}, None)
        made = worker.run(PartInput(task, iter(images), columns)).columns
        absent = {"detector_score", "match_iou", *_SCORES} & made.keys()
        return made | {name: [math.nan if v is None else v for v in made[name]] for name in absent}


@dataclass
class Made:
    """What the stages made of some scenes: masks, scored candidates by method, CPU seconds by stage."""

    truth: list[KnownImage]
    masks: Columns
    scored: dict[str, Columns]
    seconds: dict[str, float]

    def __add__(self, other: Made) -> Made:
        def joined(a: Columns, b: Columns) -> Columns:
            return {name: [*a[name], *b[name]] for name in a}

        return Made(
            self.truth + other.truth,
            joined(self.masks, other.masks),
            {method: joined(self.scored[method], other.scored[method]) for method in self.scored},
            {stage: self.seconds[stage] + other.seconds[stage] for stage in self.seconds},
        )


def make(split: Split, numbers: Sequence[int], assignments: Sequence[str], methods: Sequence[str]) -> Made:
    """Masks once, then captions and scores by each method."""
    import torch

    torch.set_num_threads(1)
    scenes, seconds, clock = Scenes(split, numbers), {}, time.process_time()
    base = resolve("demo", assignments=assignments).settings
    context = NetworkContext(
        base.numerics, DeviceRequest(device="cpu"), ImageReading(Folder(Path()), 1, 1, 1)
    )  # nothing is read

    def lap(stage: str) -> None:
        nonlocal clock
        seconds[stage], clock = time.process_time() - clock, time.process_time()

    found = scenes.run(masks.Spec(context, base.masks).make_worker())
    lap("masks")
    judge = scores.Spec(context, base.filter).make_worker()
    scored: dict[str, Columns] = {}
    for method in methods:
        own = resolve("demo", assignments=(*assignments, *METHODS[method])).settings
        said = scenes.run(captions.Spec(context, own.captions).make_worker(), masks=found)
        lap(f"captions, {method}")
        scored[method] = join(said, scenes.run(judge, masks=found, captions=said))
        lap(f"scores, {method}")
    return Made(scenes.truth, found, scored, seconds)


def rows(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def kept(scored: Columns, settings: FilterSettings, min_doc: float) -> list[dict[str, Any]]:
    """The candidates that the filter keeps at a threshold."""
    verdict = select(scored, settings.model_copy(update={"min_doc": min_doc}))["kept"]
    return [row for row, keep in zip(rows(scored), verdict, strict=True) if keep]


def judge_at(threshold: float, made: Made, settings: FilterSettings) -> Evaluation:
    """The evaluation with the filter at a DoC threshold."""
    runs = [CaptionRun(m, rows(columns), kept(columns, settings, threshold)) for m, columns in made.scored.items()]
    return evaluate(made.truth, rows(made.masks), runs)


def show(figure: Figure, percent: bool) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "-"
    scale, digits = (100, 1) if percent else (1, 2)
    value, low, high = (f"{scale * x:.{digits}f}" for x in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"


def print_tables(threshold: float, result: Evaluation) -> None:
    """Markdown tables, per cent with intervals."""
    print(f"\n### DoC > {threshold:g}: {result.images} scenes, {result.objects} objects, {result.masks} masks\n")
    print("; ".join(f"{name} {show(figure, True)}" for name, figure in result.mask_figures.items()), "\n")
    print("| method | " + " | ".join(name.replace("_", " ") for name in CAPTION_FIGURES) + " |")
    print("|---|" + "---|" * len(CAPTION_FIGURES))
    for one in result.captions:
        cells = [show(one.figures[name], name != "per_mask") for name in CAPTION_FIGURES]
        print(f"| {one.method}{' + DoC' if one.filtered else ''} | " + " | ".join(cells) + " |")
    print()
    for rise in result.differences:
        print(f"{rise.figure}: {rise.lower} -> {rise.upper}: {show(rise.rise, True)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--split", choices=("evaluation", "tune"), default="evaluation")
    parser.add_argument("--min-doc", type=float, nargs="*", help="thresholds to show; default: the profile's")
    parser.add_argument("--set", dest="assignments", nargs="*", default=[], help="settings beyond the demo profile")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    settings = resolve("demo", assignments=arguments.assignments).settings.filter
    chunks = [range(k, arguments.scenes, arguments.workers) for k in range(arguments.workers)]
    with ProcessPoolExecutor(arguments.workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(make, arguments.split, c, arguments.assignments, arguments.methods) for c in chunks]
        made = reduce(add, (job.result() for job in jobs))
    print("CPU-s a scene: ", {stage: round(s / arguments.scenes, 2) for stage, s in made.seconds.items()})
    results = {t: judge_at(t, made, settings) for t in arguments.min_doc or [settings.min_doc]}
    for threshold, result in results.items():
        print_tables(threshold, result)
    if arguments.out:
        arguments.out.write_text(json.dumps({str(t): result.to_json() for t, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
