"""The real command in this process: `invoke(arguments)` runs `pseudoris` and gives exit code, stdout and stderr."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str


def invoke(*arguments: str | Path) -> Outcome:
    """Run `pseudoris arguments...`; exit codes and messages are those that a shell would see."""
    from pseudoris_cli.__main__ import main

    out, err = io.StringIO(), io.StringIO()
    argv = ["pseudoris", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            return Outcome(int(end.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("main() returned")


def draw_pictures(folder: Path, count: int, first: int = 0) -> None:
    """Pictures of our own making, as the demo renders them."""
    from PIL import Image

    from pseudoris_cli.demo.world import render_scene, scene_seed

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.fromarray(render_scene(scene_seed("tune", number)).image_rgb).save(folder / f"{number:03d}.png")


def rows_of(work: Path, stage: str, plan: str = "plan.jsonl") -> list[dict]:
    """All rows of the current version of a stage (or of a pilot's, by its plan), as plain values, in plan order."""
    from pseudoris_cli.storage.parts import read_part
    from pseudoris_cli.storage.workspace import Workspace

    manifest = Workspace(work).latest(stage, plan=plan).manifest()
    rows = []
    for _, entry in sorted(manifest.entries.items()):
        columns = read_part(manifest.path_of(entry))
        rows += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{k: repr(float(v)) if isinstance(v, float | np.floating) else v for k, v in row.items()} for row in rows]
