"""What a million images cost beside the pixels: planning, starting a shard, `status`, and how many parts a second can be committed.

    python benchmarks/scaling.py [--images 1000000] [--part-size 32] [--shards 64] [--folder DIR]

Makes a plan and the manifests of `--shards` finished shards of one masks version, without pictures or part contents, and
measures the calls in processes of their own. Sizes of plan and manifest lines are exact; part files are empty, so reading
their sizes costs what it does in life. Nothing here says what a GPU does.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pseudoris_cli.execution.backlog import Backlog
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.records import ImageRef
from pseudoris_cli.storage.manifest import ManifestWriter, writer_name
from pseudoris_cli.storage.parts import part_name
from pseudoris_cli.storage.status import version_states
from pseudoris_cli.storage.workspace import Artifact, Workspace

DIGEST = "0123456789abcdef" * 4


def references(count: int) -> Any:
    """Names of 27 characters in folders of a thousand, with ids of 15 digits, as hashes have."""
    for number in range(count):
        key = f"{number // 1000:06}/{number:016x}.jpg"
        yield ImageRef(key, 10**15 + number, key)


def plan(work: Path, count: int, size: int) -> None:
    """Plan so many images."""
    workspace = Workspace(work)
    workspace.create()
    workspace.set_source({"kind": "folder", "root": str(work), "options": {}, "image_root": None})
    workspace.plan().extend(references(count), size)


def finish(work: Path, shards: int) -> None:
    """A finished masks version, written line by line as `shards` writers would; its part files are empty."""
    workspace = Workspace(work)
    artifact = opened(workspace)
    planned = workspace.plan()
    for shard in range(shards):
        writer = writer_name((shard, shards))
        with (artifact.folder / f"manifest-{writer}.jsonl").open("w") as file:
            for part in planned.parts[shard::shards]:
                name = part_name(part.part, 0, writer)
                (artifact.folder / name).touch()
                images = [
                    {
                        "key": ref.key,
                        "status": "done",
                        "rows": 8,
                        "size": 150_000,
                        "mtime_ns": 10**18 + 1,
                        "sha256": DIGEST,
                    }
                    for ref in planned.images(part.part)
                ]
                record = {
                    "part": part.part,
                    "generation": 0,
                    "file": {"name": name, "rows": 8 * part.count, "bytes": 0, "sha256": DIGEST},
                    "upstream": None,
                    "counts": {"done": part.count},
                    "notes": {},
                    "seconds": 60.123,
                    "committed": 1.7e9 + part.part,
                    "images": images,
                }
                file.write(json.dumps(record, separators=(",", ":")) + "\n")


def opened(workspace: Workspace) -> Artifact:
    content = {"schema": 1, "upstream": None, "plan": "plan.jsonl", "settings": {}}
    return workspace.open_version("masks", content, {})


def start(work: Path, shards: int) -> None:
    """What a shard of the next stage does before its first part: read plan and manifests, look at every part before it."""
    workspace = Workspace(work)
    masks = opened(workspace)
    backlog = Backlog("captions", workspace.plan(), {"masks": masks.manifest()}, ("masks",), None)
    content = {"schema": 1, "upstream": masks.version, "plan": "plan.jsonl", "settings": {}}
    captions = workspace.open_version("captions", content, {})
    selection = Selection((0, shards))
    assert backlog.check_upstream(selection) == 0
    with ManifestWriter(captions.folder, "captions", writer_name((0, shards)), {}) as writer:
        backlog.manifest = writer.manifest
        assert len(backlog.pending(selection)) == len(range(0, len(backlog.plan), shards))


def commits(folder: Path, count: int = 300) -> float:
    """Parts a second that one writer publishes on this disk, fsync and all, without work."""
    from pseudoris_cli.storage.manifest import ImageOutcome
    from pseudoris_cli.storage.schema import COLUMNS

    images = [ImageOutcome(f"{n:027}", "empty", size=1, mtime_ns=1, sha256=DIGEST) for n in range(32)]
    columns: dict[str, Any] = {column.name: [] for column in COLUMNS["masks"]}
    with ManifestWriter(folder, "masks", "main", {}) as writer:
        started = time.perf_counter()
        for part in range(count):
            writer.commit(part, columns, images, None, {}, 1.0)
        return count / (time.perf_counter() - started)


def one_part(folder: Path, images: int) -> None:
    """One part of captions, the stage with the most rows: 220 candidates an image, from the worker's rows to the file."""
    from pseudoris_cli.execution.tasks import ImageResult, LoadedImage, PartInput, PartTask
    from pseudoris_cli.records import Caption
    from pseudoris_cli.stages.batching import run_batches
    from pseudoris_cli.storage.parts import write_part
    from pseudoris_cli.storage.rows import caption_row

    refs = tuple(ImageRef(f"{number:027}", number, f"{number:027}") for number in range(images))

    def work(batch: list[LoadedImage]) -> list[ImageResult]:
        return [
            ImageResult(
                [
                    caption_row(image.ref, _caption(Caption, image.ref.image_id, mask, one))
                    for mask in range(5)
                    for one in range(44)
                ]
            )
            for image in batch
        ]

    loaded = (LoadedImage(ref, None, None, DIGEST) for ref in refs)  # type: ignore[arg-type]
    result = run_batches(PartInput(PartTask(0, refs, frozenset(), {}, None), loaded, {}), 8, work, "captions")
    folder.mkdir(parents=True, exist_ok=True)
    file = write_part(folder, part_name(0, 0, "main"), "captions", result.columns, {})
    print(f"{file.rows:,} rows, {file.bytes / 2**20:.2f} MiB", file=sys.stderr)


def _caption(kind: Any, image: int, mask: int, number: int) -> Any:
    words = f"the {image * 7919 % 997} thing number {number} left of {mask} and {image * 104729 % 9973} more"
    return kind(mask, number, words, "masked", f"top_k={number % 11}", -number / 7, 9)


STEPS: dict[str, Callable[[Path, argparse.Namespace], Any]] = {
    "plan": lambda work, o: plan(work, o.images, o.part_size),
    "plan again": lambda work, o: plan(work, o.images, o.part_size),
    "finish": lambda work, o: finish(work, o.shards),
    "status": lambda work, o: list(version_states(Workspace(work))),
    "start of a shard": lambda work, o: start(work, o.shards),
    "one part of captions": lambda work, o: one_part(work / "part", o.part_size),
}


def measured(step: str, work: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds and peak MiB of a step in a process of its own."""
    words = ["--images", str(options.images), "--part-size", str(options.part_size), "--shards", str(options.shards)]
    done = subprocess.run(
        [sys.executable, __file__, *words, "--step", step, str(work)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--part-size", type=int, default=32)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where to work  [default: a temporary folder]")
    parser.add_argument("--step", nargs=2, metavar=("NAME", "WORK"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        began = time.perf_counter()
        STEPS[options.step[0]](Path(options.step[1]), options)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu = usage.ru_utime + usage.ru_stime
        print(json.dumps({"wall s": time.perf_counter() - began, "cpu s": cpu, "MiB": usage.ru_maxrss / 1024}))
        return 0
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-scaling-", dir=options.folder))
    try:
        print("| step | wall s | cpu s | peak MiB |\n|---|---|---|---|")
        for step in STEPS:
            found = measured(step, folder / "work", options)
            print(f"| {step} | {found['wall s']:.1f} | {found['cpu s']:.1f} | {found['MiB']:.0f} |", flush=True)
        work = folder / "work"
        lines = sum(path.stat().st_size for path in work.glob("masks/*/manifest-*.jsonl"))
        print(f"plan bytes an image: {(work / 'plan.jsonl').stat().st_size / options.images:.1f}")
        print(f"manifest bytes an image: {lines / options.images:.1f}")
        (folder / "commits").mkdir()
        print(f"parts committed a second: {commits(folder / 'commits'):.0f}")
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
