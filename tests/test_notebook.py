"""The stages from Python: what is public stays, the example notebook runs, and what a notebook meets."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke, rows_of
from locations import REPOSITORY

from pseudoris_cli.errors import EnvironmentStop, MissingDependency, UsageError
from pseudoris_cli.notebook import RunOptions, Summary, read_table, run, say_nothing

NOTEBOOK = REPOSITORY / "docs" / "first_look.ipynb"
CPU = RunOptions(device="cpu")
PUBLIC = {
    "pseudoris_cli.notebook": {
        "RunOptions": "(until: 'str' = 'filter', pilot: 'int | None' = None, device: 'str | None' = None, "
        "out: 'str | Path | None' = None, formats: 'tuple[str, ...]' = ('refcoco',), images: 'ImageMode' = 'none', "
        "retry_failed: 'bool' = False) -> None",
        "print_progress": "(stage: 'str', done: 'int', total: 'int') -> 'None'",
        "read_table": "(work: 'str | Path', stage: 'str', version: 'str | None' = None, pilot: 'int | None' = None) -> 'pa.Table'",
        "run": "(images: 'str | Path | None', work: 'str | Path', profile: 'str | None' = None, "
        "settings: 'Mapping[str, Any] | None' = None, options: 'RunOptions | None' = None, progress: 'Told' = "
        "<function print_progress>) -> 'list[Summary]'",
        "say_nothing": "(stage: 'str', done: 'int', total: 'int') -> 'None'",
    },
    "pseudoris_cli.dataset": {
        "PseudoRISDataset": "(root: 'str | Path', split: 'str' = 'train', image_root: 'str | Path | None' = None, per: \"Literal"
        "['sentence', 'mask']\" = 'sentence', transforms: 'Transforms | None' = None, shares: 'str' = 'train=1') -> 'None'",
        "collate": "(items: 'Sequence[Sample]') -> 'Batch'",
    },
}
"""A name or an argument that goes from here breaks the code of others; new arguments come last and have defaults."""
FIELDS = "stage version parts parts_done_before rows counts total_counts seconds remarks left_out"


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in PUBLIC.items() for n in names])
def test_signatures_stay(module: str, name: str) -> None:
    signature = str(inspect.signature(getattr(import_module(module), name)))
    assert re.sub(r"<function (\w+) at \w+>", r"<function \1>", signature) == PUBLIC[module][name]


def test_the_page_lists_what_is_public() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text()
    table = page.split("<!-- public")[1]
    listed = {
        m: set(re.findall(r"`(\w+)`", names))
        for m, names in re.findall(r"^\| `(pseudoris_cli\.\w+)` \| (.*) \|$", table, re.M)
    }
    for module, names in listed.items():
        assert all(hasattr(import_module(module), name) for name in names)
    assert listed["pseudoris_cli.notebook"] == set(import_module("pseudoris_cli.notebook").__all__)
    assert {name for names in listed.values() for name in names} >= {
        name for names in PUBLIC.values() for name in names
    }
    assert set(FIELDS.split()) <= set(Summary.__dataclass_fields__)
    assert all(f"`{field}`" in page for field in FIELDS.split())
    assert all(f"`{field}`" in page for field in RunOptions.__dataclass_fields__)


def test_the_notebook_runs(tmp_path: Path, demo_run: tuple[Path, str]) -> None:
    """Its cells in order, in a process of their own, each shown as a notebook shows it."""
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], {cell["cell_type"] for cell in notebook["cells"]}) == (4, {"code", "markdown"})
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shutil.copytree(demo_run[0], tmp_path / "pseudoris-demo")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[1, 1, 1, 1] [0, 0, 0, 0]" in done.stdout
    assert "['filter']" in done.stdout
    assert re.search(r"\d+ sentences; torch\.Size\(\[2, 3, 192, 256\]\)", done.stdout)
    assert "masks: 2/2 images\n" in done.stdout.replace("\r", "\n")


def test_rows_are_those_of_the_command(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 2)
    told: list[tuple[str, int, int]] = []
    summaries = run(
        tmp_path / "images", tmp_path / "a", "demo", {"filter.min_doc": 1.1}, CPU, lambda *what: told.append(what)
    )
    assert [summary.stage for summary in summaries] == ["masks", "captions", "scores", "filter"]
    assert [told[-1][0], *[one for one in told if one[0] == "masks"][-1]] == ["filter", "masks", 2, 2]
    work = ("--work", tmp_path / "b", "--profile", "demo", "--min-doc", "1.1", "--device", "cpu", "-q")
    done = invoke("run", "--images", tmp_path / "images", *work)
    assert done.code == 0, done.stderr
    rows = rows_of(tmp_path / "b", "filter")
    assert rows == rows_of(tmp_path / "a", "filter")
    table = read_table(tmp_path / "a", "filter")
    assert table.num_rows == len(rows) == summaries[-1].rows
    assert table["caption"].to_pylist() == [row["caption"] for row in rows]
    assert read_table(tmp_path / "a", "filter", version=summaries[-1].version[:5]).equals(table)
    assert [
        summary.parts for summary in run(None, tmp_path / "a", "demo", {"filter.min_doc": 1.1}, CPU, say_nothing)
    ] == [0] * 4


def test_a_part_of_the_chain_and_a_pilot(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 3)
    [masks] = run(tmp_path / "images", tmp_path / "w", "demo", options=RunOptions("masks", pilot=2, device="cpu"))
    assert masks.total_counts["done"] == 2
    assert read_table(tmp_path / "w", "masks", pilot=2).num_rows == masks.rows
    with pytest.raises(UsageError, match="holds no version of masks yet"):
        read_table(tmp_path / "w", "masks")
    out = RunOptions("export", device="cpu", out=tmp_path / "out", formats=("jsonl", "coco"))
    summaries = run(None, tmp_path / "w", "demo", options=out)
    assert summaries[-1].stage == "export"
    assert (tmp_path / "out" / "train.jsonl").is_file()


def test_it_works_outside_of_the_main_thread(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    made: list[Summary] = []
    options = RunOptions("masks", device="cpu")
    thread = threading.Thread(
        target=lambda: made.extend(run(tmp_path / "images", tmp_path / "w", "demo", options=options))
    )
    thread.start()
    thread.join()
    assert [summary.stage for summary in made] == ["masks"]


def test_mistakes_are_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path / "images", 1)
    images, work = tmp_path / "images", tmp_path / "w"
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path))
    with pytest.raises(UsageError, match="there is no such file or folder"):
        run(tmp_path / "none", work, "demo")
    with pytest.raises(UsageError, match="until='everything': choose from masks, captions"):
        run(images, work, "demo", options=RunOptions("everything"))
    with pytest.raises(UsageError, match="no such setting"):
        run(images, work, "demo", {"filter.min_dok": 1})
    with pytest.raises(UsageError, match=r"filter\.min_doc"):
        run(images, work, "demo", {"filter.min_doc": "high"})
    with pytest.raises(UsageError, match="has no source yet"):
        run(None, work, "demo")
    with pytest.raises(MissingDependency, match="weights fetch"):
        run(images, work)
    with pytest.raises(UsageError, match="no format 'pdf'"):
        run(images, work, "demo", options=RunOptions("export", out=tmp_path / "out", formats=("pdf",)))
    with pytest.raises(UsageError, match="there is no stage 'mask'"):
        read_table(work, "mask")
    with pytest.raises(UsageError, match="is no work directory"):
        read_table(tmp_path / "none", "masks")


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    run(tmp_path / "images", tmp_path / "w", "demo", options=RunOptions("masks", device="cpu"), progress=say_nothing)
    [part] = (tmp_path / "w" / "masks").glob("*/part-*.parquet")
    part.write_bytes(b"PAR1")
    with pytest.raises(EnvironmentStop, match="status --verify"):
        read_table(tmp_path / "w", "masks")
