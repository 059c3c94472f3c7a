"""Work directories with masks and captions, ready for a listener behind an endpoint, and the command that asks it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from invoking import Outcome, invoke
from vlm_work import common, draw_work

from pseudoris_cli.storage.workspace import Workspace

TEXTS = ("the red box", "a box on the left", "the lowest one")


def draw_judge_work(folder: Path, images: int, endpoint: str, part_size: int = 4, masks: int = 3, **judge: Any) -> None:
    """Images with masks and three captions for each, from a table, all scored and passing the cheap rules."""
    draw_work(folder, images, endpoint, part_size, masks)
    rows = [
        {"image": f"{number:03d}.png", "mask": mask, "text": f"{text} {number}{mask}"}
        for number in range(images)
        for mask in range(masks)
        for text in TEXTS
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_judge_config(folder, endpoint, **judge)
    for command in (("captions",), ("filter", "--set", "filter.judge.backend=none")):
        done = invoke(*command, *common(folder))
        assert done.code == 0, done.stderr


def write_judge_config(folder: Path, endpoint: str, **judge: Any) -> None:
    """The settings of `draw_judge_work`, with a listener at an endpoint."""
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    settings["captions"] = {"backend": "table", "path": str(folder / "captions.jsonl")}
    own = {"backend": "listener_vlm", "endpoint": endpoint, "max_side": 256, "retries": 2}
    settings["filter"] |= {"judge": own | judge, "clamp": False}
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))


def judge(folder: Path, *more: str | Path) -> Outcome:
    """`pseudoris filter` in the folder."""
    return invoke("filter", *common(folder), *more)


def judge_notes(folder: Path) -> list[dict[str, Any]]:
    """The notes of every judge part in the manifest."""
    entries = Workspace(folder / "work").latest("judge").manifest().entries
    return [entries[part].notes for part in sorted(entries)]
