"""What the selections are worth to a student:  python training/student_table.py --students FOLDER [--figure docs/students.svg]

Reads what train_student.py wrote for every selection and seed. oIoU (the sum of intersections over the sum of unions) and mIoU
over the test's expressions, and the share with an IoU above .5; a figure of a selection is the mean of its seeds, and its 95 %
interval comes from drawing scenes and seeds again, as both would be others next time. Differences are drawn with the same scenes
for both selections.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

DRAWS = 2000
NAMES = {
    "truth": "true expressions, exact masks",
    "truth, half of it with places and relations": "the same, half of places and relations",
    "both": "DoC and listener",
    "listener": "listener",
    "doc": "DoC",
    "all": "all candidates",
    "all, of another mask of the image": "all, given to another mask of the image",
}
"""Selections in the order of the table, and what they are called."""
Sums = dict[str, np.ndarray]


def sums_by_scene(path: Path, attribute: bool) -> tuple[str, Sums]:
    """Selection, and for each scene the sums of intersections, unions, IoU, IoU > .5 and expressions of a student."""
    with np.load(path) as file:
        chosen = (file["kind"] == "attribute") == attribute
        scene, inside, union = (file[name][chosen] for name in ("scene", "intersection", "union"))
        iou = inside / np.maximum(union, 1)
        count = int(file["scene"].max()) + 1
        weights = {"inside": inside, "union": union, "iou": iou, "hit": iou > 0.5, "texts": np.ones(len(iou))}
        return str(file["selection"]), {name: np.bincount(scene, w, count) for name, w in weights.items()}


FIGURES: dict[str, Callable[[Sums], np.ndarray]] = {
    "oIoU": lambda of: of["inside"] / of["union"],
    "mIoU": lambda of: of["iou"] / of["texts"],
    "IoU > .5": lambda of: of["hit"] / of["texts"],
}


def samples(
    students: list[Sums], figure: Callable[[Sums], np.ndarray], scenes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The figure under every draw of scenes int [DRAWS, scenes] (how often each), and of seeds."""
    each = np.stack([figure({name: scenes @ values for name, values in one.items()}) for one in students])
    drawn = rng.integers(len(students), size=(len(students), scenes.shape[0]))
    return np.take_along_axis(each, drawn, 0).mean(0)


def value(students: list[Sums], figure: Callable[[Sums], np.ndarray]) -> float:
    return float(np.mean([figure({name: values.sum() for name, values in one.items()}) for one in students]))


def shown(middle: float, drawn: np.ndarray) -> str:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{100 * middle:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def print_table(of: dict[str, list[Sums]], title: str) -> dict[str, tuple[float, float, float]]:
    """The table and the differences to all candidates; returns mIoU and its interval, in per cent."""
    count = len(next(iter(of.values()))[0]["texts"])
    scenes = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)
    print(
        f"\n| {title} | seeds | {' | '.join(FIGURES)} | mIoU beyond all candidates |\n|---|---|{'---|' * (len(FIGURES) + 1)}"
    )
    found = {}
    for name in (name for name in NAMES if name in of):
        cells = []
        for figure in FIGURES.values():
            cells.append(shown(value(of[name], figure), samples(of[name], figure, scenes, np.random.default_rng(1))))
        drawn = samples(of[name], FIGURES["mIoU"], scenes, np.random.default_rng(1))
        base = samples(of["all"], FIGURES["mIoU"], scenes, np.random.default_rng(2))
        rise = value(of[name], FIGURES["mIoU"]) - value(of["all"], FIGURES["mIoU"])
        cells.append("-" if name == "all" else shown(rise, drawn - base))
        print(f"| {NAMES[name]} | {len(of[name])} | {' | '.join(cells)} |")
        low, high = np.percentile(drawn, (2.5, 97.5))
        found[name] = (100 * value(of[name], FIGURES["mIoU"]), 100 * float(low), 100 * float(high))
    return found


def draw(found: dict[str, tuple[float, float, float]], path: Path) -> None:
    """Bars of intervals, one row for each selection."""
    left, width, row = 250, 640, 30
    height = row * len(found) + 44
    low, high = min(10 * int(one[1] // 10) for one in found.values()), 100

    def x(per_cent: float) -> float:
        return left + (width - left - 60) * (per_cent - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for tick in range(low, high + 1, 10):
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 18}" text-anchor="middle" fill="#555">{tick}</text>')
    for number, (name, (middle, least, most)) in enumerate(found.items()):
        y = 24 + row * number
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{NAMES[name]}</text>')
        parts.append(
            f'<line x1="{x(least):.1f}" x2="{x(most):.1f}" y1="{y}" y2="{y}" stroke="#2563a8" stroke-width="3"/>'
        )
        parts.append(f'<circle cx="{x(middle):.1f}" cy="{y}" r="5" fill="#2563a8"/>')
        parts.append(f'<text x="{x(most) + 8:.1f}" y="{y + 4}" fill="#222">{middle:.1f}</text>')
    parts.append(
        f'<text x="{x((low + high) / 2):.1f}" y="{height - 3}" text-anchor="middle" fill="#555">mIoU, per cent</text>'
    )
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    for attribute, title in (
        (True, "expressions of attributes"),
        (False, "of places, orders, comparisons and relations"),
    ):
        of: dict[str, list[Sums]] = defaultdict(list)
        for path in sorted(options.students.glob("*.npz")):
            selection, sums = sums_by_scene(path, attribute)
            of[selection].append(sums)
        found = print_table(of, title)
        if attribute and options.figure:
            draw(found, options.figure)


if __name__ == "__main__":
    main()
