"""How good the embedded default is, on scenes used neither in training nor in choosing settings.

    python benchmarks/demo_quality.py [--scenes 200] [--split evaluation] [--min-doc 1.2] [--set a.b=c ...]

Runs the stages' own workers over rendered scenes: masks once, then captions and scores for plain sampling, the literal
contrast and the scale-preserving contrast, and prints every figure of `pseudoris_cli.evaluation` with its 95 %
bootstrap interval over scenes. `--split tune` is for choosing settings. `--out FILE` also writes everything as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pseudoris_cli import profiles
from pseudoris_cli.config import FilterSettings, Settings
from pseudoris_cli.demo.truth import KnownImage, known_scene
from pseudoris_cli.demo.world import Split, render, scene_seed
from pseudoris_cli.devices import DeviceRequest
from pseudoris_cli.evaluation import CAPTION_FIGURES, CaptionRun, Evaluation, Figure, evaluate
from pseudoris_cli.records import ImageRef
from pseudoris_cli.selection import select
from pseudoris_cli.sources.base import Stamp
from pseudoris_cli.stages import captions, masks, scores
from pseudoris_cli.stages.filter import join
from pseudoris_cli.work import Columns, LoadedImage, PartInput, PartTask, Worker

_SCORES = ("correctness", "uniqueness", "doc")
METHODS: dict[str, tuple[str, ...]] = {
    "plain": ("captions.contrast=0",),
    "distinctive, literal": ("captions.contrast_form=literal",),
    "distinctive, scale-preserving": ("captions.contrast_form=scale_preserving",),
}


class Scenes:
    """Rendered scenes as the stages see them, with their truth."""

    def __init__(self, split: Split, count: int) -> None:
        self.truth: list[KnownImage] = []
        self.images: list[LoadedImage] = []
        for index in range(count):
            scene = render(scene_seed(split, index))
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


def rows(columns: Columns) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def kept(scored: Columns, settings: FilterSettings, min_doc: float) -> list[dict[str, Any]]:
    """The candidates that the filter keeps at a threshold."""
    verdict = select(scored, settings.model_copy(update={"min_doc": min_doc}))["kept"]
    return [row for row, keep in zip(rows(scored), verdict, strict=True) if keep]


def measure(scenes: Scenes, assignments: Sequence[str], thresholds: Sequence[float]) -> dict[float, Evaluation]:
    """The evaluation at each DoC threshold; masks, captions and scores are made once."""
    reading: dict[str, Any] = {"device": DeviceRequest(device="cpu"), "source": None}
    reading |= {"decode_threads": 1, "decode_ahead": 1}

    def settings(*more: str) -> Settings:
        return profiles.resolve("demo", assignments=(*assignments, *more)).settings

    base = settings()
    clock = time.process_time()
    found = scenes.run(masks.Spec(base.masks, base.numerics, **reading).make_worker())
    clock = _report("masks", clock, len(scenes.images))
    scored: dict[str, Columns] = {}
    reading["max_pixels"] = base.masks.max_pixels
    judge = scores.Spec(base.filter, base.numerics, **reading).make_worker()
    for method, overrides in METHODS.items():
        own = settings(*overrides)
        said = scenes.run(captions.Spec(own.captions, own.numerics, **reading).make_worker(), masks=found)
        clock = _report(f"captions, {method}", clock, len(scenes.images))
        scored[method] = join(said, scenes.run(judge, masks=found, captions=said))
        clock = _report(f"scores, {method}", clock, len(scenes.images))
    mask_rows = rows(found)
    return {
        threshold: evaluate(
            scenes.truth,
            mask_rows,
            [CaptionRun(m, rows(columns), kept(columns, base.filter, threshold)) for m, columns in scored.items()],
        )
        for threshold in thresholds
    }


def _report(what: str, since: float, scenes: int) -> float:
    now = time.process_time()
    print(f"{what}: {(now - since) / scenes:.2f} CPU-s a scene", flush=True)
    return now


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
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    default = profiles.resolve("demo", assignments=arguments.assignments).settings.filter.min_doc
    thresholds = arguments.min_doc or [default]
    results = measure(Scenes(arguments.split, arguments.scenes), arguments.assignments, thresholds)
    for threshold, result in results.items():
        print_tables(threshold, result)
    if arguments.out:
        arguments.out.write_text(json.dumps({str(t): result.to_json() for t, result in results.items()}, indent=1))


if __name__ == "__main__":
    main()
