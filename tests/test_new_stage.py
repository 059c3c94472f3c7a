"""A new stage touches four files: its own, its settings, its columns, its row. Shown on a copy of the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from invoking import draw_pictures
from locations import REPOSITORY

STAGE = '''
"""A toy: how long every caption is, and whether that is short. Optional, between scores and filter."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pseudoris_cli.execution.tasks import ContextMaker, PartInput, PartResult, StageSpec
from pseudoris_cli.settings.models import LengthSettings, Settings

NAME = "lengths"
REVISION = 1


def is_wanted(settings: Settings) -> bool:
    return settings.lengths.short is not None


def version_content(settings: Settings) -> dict[str, Any]:
    return {"revision": REVISION, "settings": settings.lengths.model_dump(mode="json")}


def make_spec(settings: Settings, make_context: ContextMaker) -> "Spec":
    return Spec(settings.lengths)


@dataclass(frozen=True)
class Spec(StageSpec):
    settings: LengthSettings
    name: ClassVar[str] = NAME

    def make_worker(self) -> "Spec":
        return self

    def run(self, part: PartInput) -> PartResult:
        captions = part.columns["captions"]
        columns = {name: list(captions[name]) for name in ("image_key", "mask_id", "candidate_id")}
        columns["words"] = [len(caption.split()) for caption in captions["caption"]]
        columns["short"] = [words <= self.settings.short for words in columns["words"]]
        rows = {ref.key: columns["image_key"].count(ref.key) for ref in part.task.images}
        return PartResult(columns, {key: (count, None) for key, count in rows.items()})
'''
EDITS = {
    "settings/models.py": (
        "class Settings(Section):",
        "class LengthSettings(Section):\n"
        '    """The toy stage."""\n\n'
        '    short: int | None = Field(None, ge=1, description="most words of a short caption; null: the stage is left out")\n'
        "\n\nclass Settings(Section):\n"
        "    lengths: LengthSettings = LengthSettings()\n",
    ),
    "storage/schema.py": (
        "COLUMNS: dict[str, tuple[Column, ...]] = {\n",
        "COLUMNS: dict[str, tuple[Column, ...]] = {\n"
        '    "lengths": _columns(_KEY, _MASK, _CANDIDATE, ("words", pa.int32(), "words of the caption"), '
        '("short", pa.bool_(), "whether it is short")),\n',
    ),
    "storage/stage_table.py": (
        '    Stage("filter",',
        '    Stage("lengths", command="filter", unit="captions", reads=("captions",), optional=True),\n    Stage("filter",',
    ),
}
"""File -> where in it something is added, and what stands there afterwards."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with one more stage."""
    folder = tmp_path_factory.mktemp("checkout")
    package = folder / "pseudoris_cli"
    shutil.copytree(REPOSITORY / "pseudoris_cli", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "third_party"):
        shutil.copytree(REPOSITORY / name, folder / name)
    (package / "stages" / "lengths.py").write_text(STAGE)
    for name, (here, afterwards) in EDITS.items():
        text = (package / name).read_text()
        assert text.count(here) == 1, f"{name} has changed: the test must find another line to add to"
        (package / name).write_text(text.replace(here, afterwards))
    draw_pictures(folder / "images", 3)
    return folder


def pseudoris(checkout: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    call = [sys.executable, "-m", "pseudoris_cli", *words]
    done = subprocess.run(call, cwd=checkout, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def versions(work: Path, stage: str) -> set[str]:
    return {path.parent.name for path in work.glob(f"{stage}/*/artifact.json")}


def test_it_runs_resumes_and_is_left_out(checkout: Path) -> None:
    common = ("--work", "work", "--config", "configs/random.yaml", "--device", "cpu", "-q")
    asked = (*common, "--set", "lengths.short=3")
    work = checkout / "work"
    without = pseudoris(checkout, "run", "--images", "images", *common)
    assert "lengths" not in without
    before = {stage: versions(work, stage) for stage in ("masks", "captions", "scores", "filter")}

    told = pseudoris(checkout, "run", *asked, "--out", "out")
    assert "scores" in told
    assert "lengths" in told
    for stage in ("masks", "captions", "scores"):
        assert versions(work, stage) == before[stage], "the stages before it do not depend on it"
    assert len(versions(work, "filter")) == 2, "the filter after it is made from it"
    [part] = work.glob("lengths/*/part-*.parquet")
    rows = pq.read_table(part).to_pylist()
    captions = [row for path in work.glob("captions/*/part-*.parquet") for row in pq.read_table(path).to_pylist()]
    assert [row["words"] for row in rows] == [len(row["caption"].split()) for row in captions]
    assert [row["short"] for row in rows] == [row["words"] <= 3 for row in rows]
    assert (checkout / "out" / "refcoco" / "instances.json").is_file()

    again = pseudoris(checkout, "run", *asked)
    assert again.count("nothing to do") == 5
    anew = pseudoris(checkout, "filter", *common, "--set", "lengths.short=4")
    assert [line.split()[0] for line in anew.splitlines() if "rows in" in line] == ["lengths", "filter"]
    assert len(versions(work, "lengths")) == 2

    status = pseudoris(checkout, "status", "--work", "work")
    assert "lengths" in status
    assert "report.html" in pseudoris(checkout, "report", "--work", "work", "-q")
    assert "all parts are intact" in pseudoris(checkout, "status", "--verify", "--work", "work")


def test_a_stage_may_have_a_command_of_its_own(checkout: Path) -> None:
    table = checkout / "pseudoris_cli" / "storage" / "stage_table.py"
    before = table.read_text()
    table.write_text(before.replace('Stage("lengths", command="filter"', 'Stage("lengths", command="lengths"'))
    common = ("--work", "own", "--config", "configs/random.yaml", "--device", "cpu", "-q", "--set", "lengths.short=2")
    try:
        assert "\n  lengths " in pseudoris(checkout, "--help")
        assert "--from VERSION" in pseudoris(checkout, "lengths", "--help")
        for command in ("masks --images images", "captions"):
            pseudoris(checkout, *command.split(), *common)
        # the chain of the table: scores and filter share a command, of which this stage now lies in between
        told = pseudoris(checkout, "filter", *common[:-1], "lengths.short=null")
        assert "lengths" not in told
        assert "lengths" in pseudoris(checkout, "lengths", *common)
    finally:
        table.write_text(before)


def test_it_is_in_settings_and_pages(checkout: Path) -> None:
    assert "# short: null  # most words of a short caption" in pseudoris(checkout, "config", "show")
    shutil.copytree(REPOSITORY / "docs", checkout / "docs", dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    subprocess.run([sys.executable, "docs/generate.py"], cwd=checkout, env=environment, check=True, timeout=300)
    assert "### lengths" in (checkout / "docs" / "artifacts.md").read_text()
    assert "`lengths.short`" in (checkout / "docs" / "settings.md").read_text()
