"""Polygons of masks: how many a second on one core, and the share that pycocotools turns back into just the same mask.

    OMP_NUM_THREADS=1 python benchmarks/polygons.py [--seconds 5] [--photographs FOLDER]

Speed: the blobs of benchmarks/export.py at 640 x 480, the processor's time. Exactness: 12,000 masks: noise of every density,
lines, blobs with holes, rings, the objects of rendered scenes, whole and empty images, and with --photographs the regions of
equal colour in each picture of a folder. A reader that fills the polygons with OpenCV instead (`cv2.fillPoly`, which paints
the outline too) is compared where OpenCV is installed. Exits 1 below 1,000 masks a second or where a mask does not come back.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

sys.path.insert(0, str(Path(__file__).resolve().parent))
from export import make_masks

from pseudoris_cli.codecs.mask_polygons import Rings, polygon_iou, to_polygons
from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area


def noise(rng: np.random.Generator) -> np.ndarray:
    """Any density, up to 40 x 40."""
    return rng.random(rng.integers(1, 40, 2)) < rng.uniform(0, 1)


def blob(rng: np.random.Generator) -> np.ndarray:
    """Pieces with holes, 240 x 320."""
    field = ndimage.gaussian_filter(rng.standard_normal((240, 320)), rng.uniform(2, 14))
    return field > np.quantile(field, rng.uniform(0.1, 0.98))


def line(rng: np.random.Generator) -> np.ndarray:
    """A line one pixel wide, steep or flat."""
    mask = np.zeros((60, 80), bool)
    ends = rng.uniform(0, [[59, 79], [59, 79]])
    points = np.rint(np.linspace(*ends, 300)).astype(int)
    mask[points[:, 0], points[:, 1]] = True
    return mask


def rings(rng: np.random.Generator) -> np.ndarray:
    """Rings within rings."""
    y, x = np.mgrid[:120, :160] - rng.uniform(0, 120, 2)[:, None, None]
    return np.hypot(y, x) // rng.uniform(1, 12) % 2 == 0


def scenes(count: int) -> Iterator[np.ndarray]:
    """The objects of rendered scenes."""
    for number in range(count):
        yield from render_scene(scene_seed("demo", number)).masks


def photograph(path: Path) -> Iterator[np.ndarray]:
    """Regions of about equal brightness, as ragged as masks of photographs get."""
    grey = ndimage.gaussian_filter(np.asarray(Image.open(path).convert("L"), float), 1.5)
    for level in range(0, 256, 32):
        labels, count = ndimage.label((grey >= level) & (grey < level + 32))
        sizes = ndimage.sum_labels(np.ones_like(labels), labels, np.arange(1, count + 1))
        for number in np.argsort(-sizes)[:12]:
            yield labels == number + 1


def fill_iou(rle: Rle, polygons: Rings) -> float:
    """IoU of the mask and what cv2.fillPoly paints from its polygons."""
    import cv2

    painted = np.zeros((rle.height, rle.width), np.uint8)
    cv2.fillPoly(painted, [np.array(ring, np.int32).reshape(-1, 2) for ring in polygons], 1)
    mask = decode_rle(rle)
    return float((mask & (painted > 0)).sum() / (mask | (painted > 0)).sum())


def exactness(name: str, masks: Iterator[np.ndarray]) -> bool:
    """One line of the table; whether every mask came back."""
    count = exact = 0
    worst, fills = 1.0, []
    for mask in masks:
        rle = encode_rle(mask)
        polygons = to_polygons(rle)
        iou = polygon_iou(rle, polygons)
        count, exact, worst = count + 1, exact + (iou == 1), min(worst, iou)
        if rle_area(rle) > 400 and "cv2" in sys.modules:
            fills.append(fill_iou(rle, polygons))
    filled = f"{np.mean(fills):.3f} (worst {min(fills):.3f})" if fills else ""
    print(f"| {name} | {count:,} | {exact / count:.2%} | {worst:.4f} | {filled} |", flush=True)
    return exact == count


def rate(seconds: float) -> float:
    """Masks of 640 x 480 a second of processor time."""
    codes = [mask.rle for mask in make_masks(256)]
    started, made = time.process_time(), 0
    while time.process_time() - started < seconds:
        for rle in codes:
            to_polygons(rle)
        made += len(codes)
    return made / (time.process_time() - started)


def main() -> int:
    """Read the options, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--photographs", type=Path)
    options = parser.parse_args()
    try:
        import cv2  # noqa: F401
    except ImportError:
        print("OpenCV is not installed: its column stays empty")
    speed = rate(options.seconds)
    print(f"{speed:,.0f} masks of 640 x 480 a second")
    print("| masks | number | bit-equal | worst IoU | cv2.fillPoly, mean IoU |\n| --- | --- | --- | --- | --- |")
    rng = np.random.default_rng(0)
    kinds = {"noise": (noise, 6000), "lines": (line, 3000), "blobs with holes": (blob, 2000), "rings": (rings, 1000)}
    good = [exactness(name, (make(rng) for _ in range(count))) for name, (make, count) in kinds.items()]
    good.append(exactness("rendered scenes", scenes(50)))
    shapes = [(1, 1), (1, 640), (480, 1), (480, 640), (65535, 3)]
    good.append(exactness("whole and empty", (np.full(shape, value) for shape in shapes for value in (True, False))))
    if options.photographs:
        paths = [path for path in sorted(options.photographs.iterdir()) if path.suffix == ".jpg"]
        good.append(exactness("regions of photographs", (mask for path in paths for mask in photograph(path))))
    return 0 if all(good) and speed >= 1000 else 1


if __name__ == "__main__":
    raise SystemExit(main())
