"""How fast images come out of each kind of source: read, hashed and decoded ahead as for a stage, and handed to nobody.

    python benchmarks/reading_ahead.py [--images 1000] [--rounds 5] [--source folder webdataset parquet s3 s3-loose]

All sources in one process, in turns of one pass each, so that a shared machine is as slow for one as for the other. The pictures,
tars, Parquet files and the late server are those of `spine.py`. Printed: the median of the passes' images/s by the clock, the
median of their ratios to the folder's pass of the same round, and processor microseconds an image. Listing is not in it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import spine

from pseudoris_cli.execution.prefetch import Prefetcher
from pseudoris_cli.execution.tasks import ImageReading, LoadedImage, PartTask
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources import registry
from pseudoris_cli.sources.base import Source

PART = 32


def read_all(source: Source, refs: list[ImageRef]) -> tuple[float, float]:
    """Seconds by the clock and of the processor for one pass, with the threads and the images ahead of the default settings."""
    wanted = frozenset(ref.key for ref in refs)
    tasks = [PartTask(at // PART, tuple(refs[at : at + PART]), wanted, {}, None) for at in range(0, len(refs), PART)]
    started, used = time.perf_counter(), time.process_time()
    reading = ImageReading(source, max_pixels=10**8, decode_threads=2, decode_ahead=16)
    for part in Prefetcher(reading, lambda part: None).parts(tasks):
        assert all(isinstance(image, LoadedImage) for image in part.images)
    return time.perf_counter() - started, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--side", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    kinds = ["folder", "webdataset", "parquet", "s3", "s3-loose"]
    parser.add_argument("--source", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer of the S3 server")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-reading-"))
    try:
        with ExitStack() as servers:
            loose = spine.paint(folder / "images", options.images, options.side)
            found = {}
            for kind in dict.fromkeys(["folder", *options.source]):
                place: Path | str = spine.pack({"s3": "webdataset", "s3-loose": "folder"}.get(kind, kind), loose)
                if kind.startswith("s3"):
                    place = servers.enter_context(spine.served(Path(place), options.latency))
                    import s3fs

                    s3fs.S3FileSystem.clear_instance_cache()  # it would hold the address of the server before
                source = registry.open_source(registry.describe(place, {}, None))
                found[kind] = (source, list(source.images()))
            passes = [{kind: read_all(*one) for kind, one in found.items()} for _ in range(options.rounds + 1)][1:]
    finally:
        shutil.rmtree(folder)
    print("| source | images/s | of the folder's | CPU µs/image |\n|---|---|---|---|")
    for kind in found:
        rate = options.images / median(one[kind][0] for one in passes)
        ratio = median(one["folder"][0] / one[kind][0] for one in passes)
        cpu = 1e6 * median(one[kind][1] for one in passes) / options.images
        print(f"| {kind} | {rate:,.0f} | {ratio:.2f} | {cpu:,.0f} |")


if __name__ == "__main__":
    main()
