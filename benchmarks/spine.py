"""What the spine costs: reading, decoding, planning, publishing and resuming, with a worker that does next to nothing.

    python benchmarks/spine.py [--images 10000 100000] [--side 320] [--source folder webdataset parquet s3 s3-loose] [--folder DIR]

Several sources are measured one after the other, in rounds (`--rounds`), so that ratios are of neighbours in time; `s3` is tars of
1,000 pictures, `s3-loose` the pictures themselves, on moto's server, in a process of its own, behind a proxy that waits `--latency`
seconds before each answer.
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
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "random.yaml"
DISTINCT = 10_000
EACH = 1_000
"""Pictures in a tar or Parquet file."""
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


def pack(kind: str, folder: Path) -> Path:
    """The pictures of a folder in tars or Parquet files of 1,000 beside it; returns what `--images` takes."""
    if kind == "folder":
        return folder
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = folder.with_name(f"{folder.name}-{kind}")
    if target.exists():
        return target
    target.mkdir()
    names = sorted(path.name for path in folder.iterdir())
    for number, first in enumerate(range(0, len(names), EACH)):
        chosen = names[first : first + EACH]
        if kind == "parquet":
            rows = [{"bytes": (folder / name).read_bytes(), "path": name} for name in chosen]
            pq.write_table(
                pa.table({"image": rows}), target / f"train-{number:05}-of-99999.parquet", row_group_size=100
            )
            continue
        with tarfile.open(target / f"{number:05}.tar", "w") as tar:
            for name in chosen:
                info = tarfile.TarInfo(name)
                info.size = (folder / name).stat().st_size
                with (folder / name).open("rb") as file:
                    tar.addfile(info, file)
    return target


@contextmanager
def served(tars: Path, latency: float) -> Iterator[str]:
    """A URL at which the tars, or loose pictures, lie, on a server in another process that answers late."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(tars), str(latency)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_ENDPOINT_URL": process.stdout.readline().strip(),
    }
    try:
        yield "s3://pictures"
    finally:
        process.kill()
        process.wait()


def serve(tars: Path, latency: float) -> None:
    """Run the server until we are killed; its address goes to stdout."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    from s3_server import misbehaving, moto, upload

    with moto() as url, misbehaving(url) as proxy:
        upload(url, "pictures", tars)
        proxy.latency = latency
        print(proxy.url, flush=True)
        time.sleep(1e9)


def command(work: Path, images: str) -> list[str]:
    """The words of the command."""
    return [
        "masks",
        "--work",
        str(work),
        "--images",
        images,
        "--config",
        str(CONFIG),
        "--device",
        "cpu",
        "-q",
        "--json",
    ]


def run_stage(work: Path, images: str) -> None:
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
    """Seconds on the wall, of the stage in it and of the processor, and peak MiB of a call."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(call, stdout=said)
        _, status, usage = os.wait4(process.pid, 0)
        del before
        assert os.waitstatus_to_exitcode(status) == 0, call
        said.seek(0)
        stage = json.load(said)["stages"][0]["seconds"]
    return {
        "stage": stage,
        "wall": time.perf_counter() - started,
        "cpu": usage.ru_utime + usage.ru_stime,
        "MiB": usage.ru_maxrss / 1024,
    }


def figures(count: int, source: str, images: str, work: Path) -> dict[str, Any]:
    """One row of the table."""
    first = measure([sys.executable, __file__, "--stage", str(work), images])
    hit = min(
        (measure([sys.executable, "-m", "pseudoris_cli", *command(work, images)]) for _ in range(3)),
        key=lambda m: m["wall"],
    )
    manifest = next(work.glob("masks/*/manifest-main.jsonl"))
    lines = manifest.read_text().splitlines()
    assert sum(sum(json.loads(line)["counts"].values()) for line in lines) == count
    shutil.rmtree(work)
    return {
        "source": source,
        "images": count,
        "images/s": count / first["wall"],
        "images/s of the stage alone": count / first["stage"],
        "images/s of two cores": 2 * count / first["cpu"],
        "seconds": first["wall"],
        "peak MiB": first["MiB"],
        "manifest bytes/image": sum(map(len, lines)) / count,
        "cache hit s": hit["wall"],
        "cache hit cpu s": hit["cpu"],
        "cache hit MiB": hit["MiB"],
    }


def measure_all(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """The rows, round by round."""
    table = []
    for count in options.images:
        loose = paint(folder / f"images-{count}", count, options.side)
        for _ in range(options.rounds):
            for source in options.source:
                place = pack({"s3": "webdataset", "s3-loose": "folder"}.get(source, source), loose)
                remote = source.startswith("s3")
                with served(place, options.latency) if remote else nullcontext(str(place)) as images:
                    table.append(figures(count, source, images, folder / f"work-{source}"))
                print(table[-1], file=sys.stderr, flush=True)
        for place in folder.glob(f"images-{count}*"):
            shutil.rmtree(place)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--side", type=int, default=320)
    sources = ["folder", "webdataset", "parquet", "s3", "s3-loose"]
    parser.add_argument("--source", nargs="+", choices=sources, default=["folder"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer of the S3 server")
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary folder]")
    parser.add_argument("--stage", nargs=2, metavar=("WORK", "IMAGES"), help=argparse.SUPPRESS)
    parser.add_argument("--serve", nargs=2, metavar=("TARS", "LATENCY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        run_stage(Path(options.stage[0]), options.stage[1])
    if options.serve:
        serve(Path(options.serve[0]), float(options.serve[1]))
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-spine-", dir=options.folder))
    try:
        table = measure_all(options, folder)
    finally:
        shutil.rmtree(folder)
    print("| " + " | ".join(table[0]) + " |")
    print("|" + "---|" * len(table[0]))
    for row in table:
        print(
            "| "
            + " | ".join(
                f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
                for value in row.values()
            )
            + " |"
        )
    first, last = table[0], table[-1]
    good = max(first["images/s"], first["images/s of two cores"]) >= LEAST_RATE
    good &= min(first["cache hit s"], first["cache hit cpu s"]) <= LONGEST_HIT
    good &= last["peak MiB"] <= MOST_GROWTH * first["peak MiB"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
