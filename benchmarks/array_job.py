"""The job array of docs/array.sbatch with plain processes in place of SLURM, on the real stages with tiny random networks.

    python benchmarks/array_job.py [--images 8] [--tasks 3]

`srun` is a script that runs its arguments; the tasks of an array run side by side with the variables that SLURM sets. In
every stage one task gets SIGUSR1 (the time limit is near) and another SIGKILL a moment after their start; then the array is
submitted again with one task fewer. Exits 1 unless all rows are those of a run in one process.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.storage.workspace import Workspace

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "docs" / "array.sbatch"
FLAGS = ["--config", str(ROOT / "configs" / "random.yaml"), "--device", "cpu", "--set", "source.part_size=1", "-q"]


def submit(folder: Path, stage: str, tasks: int, signals: dict[int, int]) -> list[int]:
    """Run an array; `signals`: task -> signal, sent when the first part is committed or after ten seconds. The exit codes."""
    flags = [*FLAGS, *(["--images", str(folder / "images")] if stage == "masks" else [])]
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "STAGE": stage,
        "WORK": str(folder / "array"),
        "SLURM_ARRAY_TASK_COUNT": str(tasks),
    }
    started = [
        subprocess.Popen(["bash", str(SCRIPT), *flags], env=environment | {"SLURM_ARRAY_TASK_ID": str(task)})
        for task in range(tasks)
    ]
    for task, number in signals.items():
        deadline = time.monotonic() + 60
        pattern = f"*/*/manifest-shard-{task}-of-{tasks}.jsonl"
        while time.monotonic() < deadline and started[task].poll() is None:
            kind = "scores" if stage == "filter" else stage
            if any(p.stat().st_size and p.parts[-3] == kind for p in (folder / "array").glob(pattern)):
                break
            time.sleep(0.02)
        subprocess.run(["pkill", f"-{number}", "-P", str(started[task].pid)], check=False)
    return [process.wait() for process in started]


def table(work: Path, stage: str) -> list[dict]:
    """All rows of a stage, in plan order."""
    manifest = Workspace(work).latest(stage).manifest()
    return [
        row
        for _, entry in sorted(manifest.entries.items())
        for row in pq.read_table(manifest.path_of(entry)).to_pylist()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--tasks", type=int, default=3)
    options = parser.parse_args()
    from PIL import Image

    folder = Path(tempfile.mkdtemp(prefix="pseudoris-array-"))
    try:
        (folder / "images").mkdir()
        for number in range(options.images):
            Image.fromarray(render_scene(scene_seed("tune", number)).image_rgb).save(
                folder / "images" / f"{number}.png"
            )
        (folder / "bin").mkdir()
        (folder / "bin" / "srun").write_text('#!/bin/bash\nexec "$@"\n')
        (folder / "bin" / "pseudoris").write_text(f'#!/bin/bash\nexec {sys.executable} -m pseudoris_cli "$@"\n')
        for script in (folder / "bin").iterdir():
            script.chmod(0o755)
        alone = [sys.executable, "-m", "pseudoris_cli", "run", "--work", str(folder / "alone"), *FLAGS]
        subprocess.run([*alone, "--images", str(folder / "images")], check=True)
        for stage in ("masks", "captions", "filter"):
            first = submit(folder, stage, options.tasks, {0: signal.SIGUSR1, 1: signal.SIGKILL})
            second = submit(folder, stage, options.tasks - 1, {})
            if any(second):
                third = submit(folder, stage, options.tasks - 1, {})
                print(stage, "third", third)
            print(f"{stage}: exit codes {first}, then with one task fewer {second}", flush=True)
        same = {
            s: table(folder / "array", s) == table(folder / "alone", s)
            for s in ("masks", "captions", "scores", "filter")
        }
        print("rows equal:", same)
        return 0 if all(same.values()) else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
