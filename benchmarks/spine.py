"""What the spine costs: reading, decoding, planning, publishing and resuming, with a worker that does next to nothing.

    python benchmarks/spine.py [--images 10000 100000] [--side 320] [--folder DIR]

10,000 distinct JPEGs; larger counts are hard links to them. Each figure comes from a process of its own: images per second
and peak memory of the masks stage through the real command (its networks replaced by a worker that returns one fixed mask an
image), then the real command again with nothing to do, then bytes of the manifest. Exits 1 below 500 images/s at 10,000,
above 2 s for a cache hit at 10,000 (processor time where the machine is busy), or where memory grows by more than a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "random.yaml"
DISTINCT = 10_000
LEAST_RATE = 500.0
LONGEST_HIT = 2.0
MOST_GROWTH = 1.1


def paint(folder: Path, count: int, side: int) -> Path:
    """`count` photographs-to-be: smooth noise, about as many bytes as a photograph of that size."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(min(count, DISTINCT)):
        coarse = generator.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((side, side * 3 // 4), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:07}.jpg", quality=90)
    for number in range(DISTINCT, count):
        os.link(folder / f"{number % DISTINCT:07}.jpg", folder / f"{number:07}.jpg")
    return folder


def command(work: Path, images: Path) -> list[str]:
    """The words of the command."""
    return ["masks", "--work", str(work), "--images", str(images), "--config", str(CONFIG), "--device", "cpu", "-q"]


def run_stage(work: Path, images: Path) -> None:
    """The real command in this process, with the trivial worker."""
    from pseudoris_cli.__main__ import main
    from pseudoris_cli.execution.tasks import ImageResult, LoadedImage, PartInput, PartResult
    from pseudoris_cli.records import Mask, Rle
    from pseudoris_cli.rle import rle_from_counts
    from pseudoris_cli.stages import masks
    from pseudoris_cli.stages.batching import run_batches
    from pseudoris_cli.storage.rows import mask_row

    class Trivial:
        def run(self, part: PartInput) -> PartResult:
            return run_batches(part, 8, self.work, masks.NAME)

        def work(self, batch: list[LoadedImage]) -> list[ImageResult]:
            return [ImageResult([mask_row(image.ref, self.mask(image))]) for image in batch]

        def mask(self, image: LoadedImage) -> Mask:
            height, width = image.image_rgb.shape[:2]
            rle: Rle = rle_from_counts([0, height * width // 2, height * width - height * width // 2], height, width)
            return Mask(0, rle, (0, 0, width // 2, height), height * width // 2, 0.9, 0.9)

    masks.Spec.make_worker = lambda self: Trivial()  # type: ignore[assignment,method-assign,return-value]
    sys.argv = ["pseudoris", *command(work, images)]
    main()


def measure(call: list[str]) -> dict[str, float]:
    """Seconds on the wall and of the processor, and peak MiB of a call."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    del before
    assert os.waitstatus_to_exitcode(status) == 0, call
    return {
        "wall": time.perf_counter() - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "MiB": usage.ru_maxrss / 1024,
    }


def figures(count: int, side: int, folder: Path) -> dict[str, Any]:
    """One row of the table."""
    images = paint(folder / f"images-{count}", count, side)
    work = folder / f"work-{count}"
    first = measure([sys.executable, __file__, "--stage", str(work), str(images)])
    hit = min(
        (measure([sys.executable, "-m", "pseudoris_cli", *command(work, images)]) for _ in range(3)),
        key=lambda m: m["wall"],
    )
    manifest = next(work.glob("masks/*/manifest-main.jsonl"))
    lines = manifest.read_text().splitlines()
    assert sum(sum(json.loads(line)["counts"].values()) for line in lines) == count
    shutil.rmtree(work)
    shutil.rmtree(images)
    return {
        "images": count,
        "images/s": count / first["wall"],
        "images/s of two cores": 2 * count / first["cpu"],
        "seconds": first["wall"],
        "peak MiB": first["MiB"],
        "manifest bytes/image": sum(map(len, lines)) / count,
        "cache hit s": hit["wall"],
        "cache hit cpu s": hit["cpu"],
        "cache hit MiB": hit["MiB"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary folder]")
    parser.add_argument("--stage", type=Path, nargs=2, metavar=("WORK", "IMAGES"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(*options.stage)
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-spine-", dir=options.folder))
    try:
        table = [figures(count, options.side, folder) for count in options.images]
    finally:
        shutil.rmtree(folder)
    print("| " + " | ".join(table[0]) + " |")
    print("|" + "---|" * len(table[0]))
    for row in table:
        print(
            "| "
            + " | ".join(f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" for value in row.values())
            + " |"
        )
    first, last = table[0], table[-1]
    good = max(first["images/s"], first["images/s of two cores"]) >= LEAST_RATE
    good &= min(first["cache hit s"], first["cache hit cpu s"]) <= LONGEST_HIT
    good &= last["peak MiB"] <= MOST_GROWTH * first["peak MiB"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
