"""Every export format over a generated stream: seconds, peak memory and bytes, and whether the output reads back.

    python benchmarks/export.py [--images 100000] [--masks 8] [--formats refcoco coco ...] [--scratch FOLDER]

Each format runs in a process of its own, from an iterator that makes its images as they are asked for, so that the peak
is the renderer's. Masks are blobs of 640 x 480 pictures, three sentences each; the pictures are one small JPEG, which
only etris needs (its LMDB repeats the picture for every mask). The time is the processor's, since other work on the
machine would spoil the clock's. Exits 1 where a format takes more than 2 GB or its output does not read back.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from pseudoris_cli.codecs import pyarrow_serialize, safe_pickle
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportContext, ExportImage, ExportObject, ExportSentence, ScoredMask
from pseudoris_cli.records import Mask
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox

LIMIT_BYTES = 2 << 30
HEIGHT, WIDTH = 480, 640
SENTENCES = ("a man in a red shirt on the left", "the person holding a cup", "young man standing near the table")


def make_masks(count: int) -> list[Mask]:
    """Star-shaped blobs with a wavy outline: as many runs as SAM's masks have."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = []
    for mask_id in range(count):
        cx, cy, radius, waves = rng.uniform(80, 560), rng.uniform(80, 400), rng.uniform(20, 140), rng.integers(3, 30)
        angle = np.arctan2(y - cy, x - cx)
        rle = encode_rle(np.hypot(x - cx, y - cy) < radius * (1 + 0.15 * np.sin(waves * angle)))
        masks.append(Mask(mask_id, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95))
    return masks


def make_images(count: int, masks_each: int) -> Iterator[ExportImage]:
    """The stream, one image at a time."""
    pool = make_masks(64)
    for number in range(count):
        objects = []
        for place in range(masks_each):
            ref_id = number * masks_each + place + 1
            sentences = tuple(
                ExportSentence(
                    candidate_id=i, caption=f"{text} {number}", sent_id=3 * ref_id + i, correctness=0.25, doc=1.5
                )
                for i, text in enumerate(SENTENCES)
            )
            mask = pool[(number + 7 * place) % len(pool)]
            objects.append(ExportObject(ref_id=ref_id, ann_id=ref_id, mask=mask, sentences=sentences))
        name = f"{number % 1000:03d}/{number:012d}.jpg"
        yield ExportImage(
            image_key=name,
            image_id=number + 1,
            file_name=name,
            width=WIDTH,
            height=HEIGHT,
            split="val" if number % 10 == 9 else "train",
            objects=tuple(objects),
            candidates=tuple(ScoredMask(mask=thing.mask, candidates=thing.sentences) for thing in objects),
        )


def render(name: str, count: int, masks_each: int, folder: Path) -> dict[str, float]:
    """Render one format here; processor seconds and peak bytes of this process."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 40)).save(buffer, "JPEG")
    context = ExportContext(
        dataset="refcoco",
        split_by="pseudo",
        images="none",
        read_image=lambda key: buffer.getvalue(),
        locate_image=lambda key: None,
    )
    start, clock = time.process_time(), time.perf_counter()
    base.write_formats([base.load_format(name)], make_images(count, masks_each), context, folder)
    return {
        "cpu": time.process_time() - start,
        "wall": time.perf_counter() - clock,
        "peak": peak_bytes(),
    }


def peak_bytes() -> int:
    """Peak memory of this process since it was executed; getrusage would begin with what the parent held at the fork."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def count_masks(name: str, folder: Path) -> int:
    """Masks in the output of a format, read back."""
    if name == "refcoco":
        return len(safe_pickle.load(folder / "refcoco" / "refs(pseudo).p"))
    if name == "coco":
        return sum(len(json.loads(path.read_bytes())["annotations"]) for path in folder.glob("annotations/*.json"))
    if name == "etris":
        return sum(_count_records(path) for path in folder.glob("lmdb/refcoco/*.lmdb"))
    if name == "hf":
        return sum(len(o) for path in folder.glob("data/*") for o in pq.read_table(path)["objects"])
    if name == "jsonl":
        return sum(1 for path in folder.glob("*.jsonl") for _ in path.open())
    if name == "grefcoco":
        return len(json.loads((folder / "grefcoco" / "grefs(pseudo).json").read_bytes()))
    if name in ("swift", "tao"):  # a line for each sentence, or each image with its expressions
        lines = [line for path in folder.glob("*.jsonl") for line in path.open()]
        sentences = len(lines) if name == "swift" else sum(len(json.loads(line)["expressions"]) for line in lines)
        return sentences // len(SENTENCES)
    if name == "sa-co":
        pairs = sum(len(json.loads(path.read_bytes())["annotations"]) for path in folder.glob("annotations/*.json"))
        return pairs // len(SENTENCES)
    if name == "sa2va":
        return sum(
            len(item["mask"]) for path in folder.glob("refcoco/*.json") for item in json.loads(path.read_bytes())
        )
    if name == "webdataset":
        return sum(_count_objects(path) for path in folder.glob("*.tar"))
    return sum(1 for path in folder.glob("pseudo_supervision/cutler_sam/*.csv") for _ in path.open()) - 2


def _count_objects(path: Path) -> int:
    with tarfile.open(path) as tar:
        rows = (tar.extractfile(member) for member in tar if member.name.endswith(".json"))
        return sum(len(json.load(row)["objects"]) for row in rows if row)


def _count_records(path: Path) -> int:
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as environment, environment.begin() as data:
        return len(pyarrow_serialize.decode(data.get(b"__keys__")))


def measure(name: str, count: int, masks_each: int, scratch: Path | None) -> bool:
    """Run one format in a process of its own and print its line; whether it kept to the limit and reads back."""
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        folder = Path(made)
        command = [sys.executable, __file__, "--inside", name, made, "--images", str(count), "--masks", str(masks_each)]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        whole = count_masks(name, folder) == count * masks_each
        shutil.rmtree(folder)
        folder.mkdir()
    rate = count * masks_each / figures["cpu"]
    print(
        f"| {name} | {count:,} | {figures['cpu']:.0f} s | {rate:,.0f} | {figures['peak'] / 2**20:.0f} MB | "
        f"{size / 2**30:.2f} GB | {'yes' if whole else 'NO'} |",
        flush=True,
    )
    return whole and figures["peak"] < LIMIT_BYTES


def main() -> int:
    """Read the options and run the formats one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--masks", type=int, default=8)
    parser.add_argument("--formats", nargs="+", default=base.format_names())
    parser.add_argument("--scratch", type=Path, help="folder for the files while they are needed")
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        name, folder = options.inside
        print(json.dumps(render(name, options.images, options.masks, Path(folder))))
        return 0
    print("| format | images | processor | masks a second | peak memory | on disk | reads back |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    good = [measure(name, options.images, options.masks, options.scratch) for name in options.formats]
    return 0 if all(good) else 1


if __name__ == "__main__":
    raise SystemExit(main())
