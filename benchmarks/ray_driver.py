"""How many parts a second the driver of a Ray run hands out, takes back and commits, where the work itself is next to nothing.

    python benchmarks/ray_driver.py [--parts 400] [--workers 2] [--images 32]

The two trivial stages of the tests on pictures of 8x6 pixels, by Ray workers on this machine and in this process. Parts of
`--images` pictures, a whole manifest line and an fsync each. The driver's own processor seconds a part are what bounds a
cluster of any size; wall-clock figures also hold the workers, which share the cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the workers need the stages of the tests, too

from trivial_stages import Bench, paint

from pseudoris_cli.execution.engine import Engine
from pseudoris_cli.execution.engine_inprocess import InProcess
from pseudoris_cli.execution.ray.cluster import RayCluster
from pseudoris_cli.execution.ray.engine import RayEngine


def run(name: str, bench: Bench, engine: Engine, parts: int) -> None:
    """One stage after a first part that starts everything; prints a line."""
    bench = replace(bench, engine=engine)
    replace(bench, limit=bench.part_size).masks()
    began, cpu = time.perf_counter(), time.process_time()
    done = bench.masks().parts
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    assert done == parts - 1
    print(f"| {name} | {done / wall:.0f} | {1000 * cpu / done:.1f} | {done / cpu:.0f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=32, help="pictures of a part")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-driver-"))
    try:
        first = [paint(folder / "images" / f"{number:07}.png", number) for number in range(100)]
        for number in range(100, options.parts * options.images):
            (folder / "images" / f"{number:07}.png").hardlink_to(first[number % 100])
        print("| engine | parts/s | driver cpu ms a part | parts per driver cpu s |\n|---|---|---|---|")
        bench = Bench(folder / "alone", folder / "images", part_size=options.images)
        run("in this process, work included", bench, InProcess(), options.parts)
        with closing(RayEngine(RayCluster(workers=options.workers))) as engine:
            run(f"{options.workers} Ray workers", replace(bench, work=folder / "ray"), engine, options.parts)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
