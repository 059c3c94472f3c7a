"""Pseudo-labels of scenes that no network of the demo has seen:  python training/make_labels.py --out LABELS

Renders scenes 6000..6999 of the split `train` and runs the commands of the demo profile on them, in two shards; then selects the
same candidates in four ways and writes one export for each, LABELS/exports/all, doc, listener and both. 17 CPU-min, 8 by the clock
on two idle cores. The work directory stays: `pseudoris train-listener --work LABELS/work` learns from it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from pseudoris_cli.evaluation.truth import write_scenes

SHARDS = 2
HEARD = ("filter.judge.backend=listener_demo", "filter.judge.min_doc=-1", "filter.judge.ask_per_mask=64")
SELECTIONS: dict[str, tuple[str, ...]] = {
    "both": HEARD,
    "listener": (*HEARD, "filter.min_doc=-1"),
    "all": ("filter.min_doc=-1",),
    "doc": (),
}
"""What is kept, as settings. The last one is the current filter afterwards, from which `train-listener` learns."""


def pseudoris(folder: Path, command: str, assignments: tuple[str, ...] = (), *more: str) -> subprocess.Popen[bytes]:
    """Begin a command in the work directory of the labels."""
    words = [sys.executable, "-m", "pseudoris_cli", command, "--work", str(folder / "work"), "--profile", "demo", "-q"]
    words += ["--new-settings", *(word for one in assignments for word in ("--set", one)), *more]
    return subprocess.Popen(words, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(running: list[subprocess.Popen[bytes]]) -> None:
    if max([one.wait() for one in running], key=abs):
        raise SystemExit("a command failed; see above")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=6000)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--split", choices=("train", "evaluation"), default="train")
    options = parser.parse_args()
    folder: Path = options.out
    write_scenes(folder / "scenes", options.split, options.scenes, options.first)
    for command, assignments in (("masks", ()), ("captions", ()), ("filter", HEARD)):
        images = ("--images", str(folder / "scenes")) if command == "masks" else ()
        shards = ((*images, "--device", "cpu", "--shard", f"{k}/{SHARDS}") for k in range(SHARDS))
        finish([pseudoris(folder, command, assignments, *shard) for shard in shards])
    for name, assignments in SELECTIONS.items():
        finish([pseudoris(folder, "filter", assignments, "--device", "cpu")])
        out = ("--format", "jsonl", "--out", str(folder / "exports" / name), "--images", "link")
        finish([pseudoris(folder, "export", assignments, *out)])


if __name__ == "__main__":
    main()
