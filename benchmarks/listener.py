"""How good the demo's listener is, and what it is worth as a judge, on scenes that nothing was trained or chosen on.

    python benchmarks/listener.py [--scenes 200] [--first 900000] [--checkpoint demo_listener] [--set a.b=c ...]

First its answers to texts about true masks, by the kind of the text: the share of right answers (the one object that is meant;
none, where nothing or several are meant), with 95 % bootstrap intervals over scenes; and how far its probabilities are
from frequencies (expected calibration error, ten equal bins of the largest probability). Then what it is worth: all
candidates of the demo's captioner on SAM's masks, selected by nothing, by DoC, by the listener and by both; the referring share of
each selector at equal coverage; and the calibration on these candidates.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from demo_quality import METHODS, Made, make, rows, show

from pseudoris_cli.backends import listener_demo
from pseudoris_cli.demo.expressions import KINDS, parse_expression
from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.evaluation.curves import COVERAGES, calibration
from pseudoris_cli.evaluation.metrics import CaptionRun, Evaluation, evaluate
from pseudoris_cli.method.listening import Judge
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.method.selection import select
from pseudoris_cli.records import CaptionCandidate, Mask, MaskedImage, Rle
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.settings.models import FilterSettings, Numerics
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.storage.schema import Columns

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from located_phrases import draw, place

TEXTS = 30


def ask_about_truth(numbers: range, checkpoint: str) -> list[tuple[int, str, bool, float, bool]]:
    """(scene, kind, whether one object is meant, the largest probability, whether it is the right answer) of every text."""
    import torch

    torch.set_num_threads(1)
    listener = listener_demo.load(listener_demo.Settings(checkpoint=checkpoint), Numerics(), "cpu")
    found = []
    for number in numbers:
        scene = render_scene(scene_seed("evaluation", number))
        rng = np.random.default_rng(number)
        objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
        drawn = [draw(objects, rng) for _ in range(TEXTS)]
        rles = [encode_rle(mask) for mask in scene.masks]
        masks = tuple(Mask(k, rle, (0, 0, 1, 1), 1, 1.0, 1.0) for k, rle in enumerate(rles))
        [answers] = listener.listen([Lineup(str(number), scene.image_rgb, masks, tuple(text for text, _ in drawn))])
        for (text, meant), told in zip(drawn, answers, strict=True):
            expression = parse_expression(text)
            right = next(iter(meant)) if len(meant) == 1 else len(masks)
            kind = expression.kind if expression else "damaged"
            found.append((number, kind, len(meant) == 1, float(told.max()), int(told.argmax()) == right))
    return found


def interval(scenes: np.ndarray, right: np.ndarray) -> str:
    """Per cent with its 95 % bootstrap interval over scenes."""
    names, group = np.unique(scenes, return_inverse=True)
    sums, counts = np.bincount(group, right), np.bincount(group)
    drawn = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=2000)
    low, high = np.percentile((drawn @ sums) / (drawn @ counts), (2.5, 97.5))
    return f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def print_truth(answers: list[tuple[int, str, bool, float, bool]]) -> None:
    scenes, kinds, one, probability, right = (np.array(column) for column in zip(*answers, strict=True))
    print("\n| texts about true masks | one object meant | none or several meant | all |")
    print("|---|---|---|---|")
    for kind in (*KINDS, "damaged", "all"):
        of_kind = np.ones(len(kinds), bool) if kind == "all" else kinds == kind
        cells = []
        for chosen in (of_kind & one, of_kind & ~one, of_kind):
            cells.append(f"{interval(scenes[chosen], right[chosen])}, n={chosen.sum():,}" if chosen.any() else "-")
        print(f"| {kind} | {' | '.join(cells)} |")
    found = calibration("true masks", probability, right)
    assert found is not None, "every text was asked"
    print(f"\nECE {found.ece:.3f}\n\n| probability | right | texts |\n|---|---|---|")
    for part in found.bins:
        print(f"| {part.probability:.3f} | {part.referring:.3f} | {part.texts:,} |")


def listen(made: Made, numbers: range, checkpoint: str) -> None:
    """Add the listener's columns to all scored candidates."""
    settings = listener_demo.Settings(checkpoint=checkpoint)
    judge = Judge(listener_demo.load(settings, Numerics(), "cpu"), settings, lambda image: np.zeros((0, 0)))
    masks = defaultdict(list)
    for row in rows(made.masks):
        height, width = (int(n) for n in row["rle_size"])
        rle = Rle(height, width, row["rle_counts"])
        masks[row["image_key"]].append(Mask(int(row["mask_id"]), rle, (0, 0, 1, 1), int(row["area"]), 1.0, 1.0))
    pictures = {f"{n:06d}.png": render_scene(scene_seed("evaluation", n)).image_rgb for n in numbers}
    images = {key: MaskedImage(key, pictures[key], tuple(of)) for key, of in masks.items()}
    for columns in made.scored.values():
        candidates = defaultdict(list)
        for row, (key, mask_id, text) in enumerate(
            zip(columns["image_key"], columns["mask_id"], columns["caption"], strict=True)
        ):
            candidates[key].append(CaptionCandidate(int(mask_id), row, text))
        said = {}
        for key, of_image in candidates.items():
            [answers] = judge.answers([images[key]], [of_image])
            said |= {one.candidate_id: answer for one, answer in zip(of_image, answers, strict=True)}
        columns["listener"] = [said[row].listener for row in range(len(said))]
        columns["listener_choice"] = [said[row].choice for row in range(len(said))]


def make_and_listen(numbers: range, assignments: list[str], checkpoint: str) -> Made:
    made = make("evaluation", numbers, assignments, list(METHODS))
    listen(made, numbers, checkpoint)
    return made


def judged(made: Made, least: float, assignments: list[str]) -> Evaluation:
    """Every method under every selection, with a bound of the listener."""
    settings = resolve("demo", assignments=assignments).settings.filter
    settings = settings.model_copy(update={"min_listener": least})
    runs = []
    for method, columns in made.scored.items():
        deaf = {name: values for name, values in columns.items() if not name.startswith("listener")}
        table = rows(columns)

        def kept(given: Columns, by: FilterSettings, table: list[dict[str, Any]] = table) -> list[dict[str, Any]]:
            return [row for row, keep in zip(table, select(given, by)["kept"], strict=True) if keep]

        heard = {
            "listener": kept(columns, settings.model_copy(update={"min_doc": -1.0})),
            "both": kept(columns, settings),
        }
        runs.append(CaptionRun(method, table, kept(deaf, settings), heard, table, settings.min_doc))
    return evaluate(made.truth, rows(made.masks), runs)


def print_selections(result: Evaluation, least: float) -> None:
    """One row for each method and selection."""
    print(
        f"\n| listener > {least:g} | referring | masks with a referring expression | kept per mask |\n|---|---|---|---|"
    )
    for one in result.captions:
        figures = (one.figures[name] for name in ("referring", "referring_coverage"))
        kept = one.figures["per_mask"].value
        print(f"| {one.method}, {one.selection} | {' | '.join(show(f, True) for f in figures)} | {kept:.1f} |")


def print_curves(result: Evaluation) -> None:
    """Referring share of each selector at equal coverage, and the calibration on the captioner's candidates."""
    print(f"\n| referring at coverage | {' | '.join(f'{c:g}' for c in COVERAGES)} |\n|---|{'---|' * len(COVERAGES)}")
    for one in result.curves:
        print(f"| {one.method}, {one.selector} | {' | '.join(show(figure, True) for figure in one.at.values())} |")
    for one in result.calibration:
        print(
            f"\n{one.method}: ECE {one.ece:.3f}; "
            + "; ".join(f"{b.probability:.2f} {b.referring:.2f} n={b.texts:,}" for b in one.bins)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument(
        "--first", type=int, default=900_000, help="number of the first scene of the split `evaluation`"
    )
    parser.add_argument("--checkpoint", default="demo_listener")
    parser.add_argument("--bounds", type=float, nargs="*", default=[0.5, 0.9])
    parser.add_argument("--set", dest="assignments", nargs="*", default=[], help="settings beyond the demo profile")
    parser.add_argument("--only-truth", action="store_true", help="leave the selections out")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    options = parser.parse_args()
    last = options.first + options.scenes
    chunks = [range(options.first + k, last, options.workers) for k in range(options.workers)]
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        print(f"scenes {options.first}..{last - 1} of the split `evaluation`")
        parts = pool.map(ask_about_truth, chunks, [options.checkpoint] * len(chunks))
        print_truth([one for part in parts for one in part])
        if not options.only_truth:
            jobs = [pool.submit(make_and_listen, chunk, options.assignments, options.checkpoint) for chunk in chunks]
            made = reduce(add, (job.result() for job in jobs))
            for number, least in enumerate(options.bounds):
                result = judged(made, least, options.assignments)
                print_selections(result, least)
                if not number:
                    print_curves(result)


if __name__ == "__main__":
    main()
