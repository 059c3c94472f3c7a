"""Every command block of README and docs is run on the demo, or says why not.

A marker stands in the line above a block: `<!-- run: demo -->`, `<!-- run: backend -->` (the page that shows
a backend) or `<!-- not run: REASON -->`. A block runs as it stands, in a folder of its own that a reader would have:
`pseudoris-demo` as `pseudoris demo` leaves it, its work directory as `pseudoris-work`, two scenes in `photos`, and `configs`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke, rows_of
from locations import REPOSITORY

PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
COMMANDS = ("bash", "sh", "console", "python", "")
MARKER = re.compile(r"<!-- (run: (?:demo|backend)|not run: \S.*) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the line above it says."""

    page: str
    line: int
    language: str
    text: str
    marker: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        fences = [number for number, line in enumerate(lines) if line.startswith("```")]
        for start, end in zip(fences[::2], fences[1::2], strict=True):
            text = "\n".join(lines[start + 1 : end]) + "\n"
            found.append(Block(page.name, start + 1, lines[start][3:].strip(), text, lines[start - 1] if start else ""))
    return found


RUN = [block for block in blocks() if block.marker == "<!-- run: demo -->"]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, demo_run: tuple[Path, str]) -> Path:
    """What a reader has after `pseudoris demo`."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(demo_run[0], folder / "pseudoris-demo")
    shutil.copytree(folder / "pseudoris-demo" / "work", folder / "pseudoris-work")
    shutil.copytree(REPOSITORY / "configs", folder / "configs")
    draw_pictures(folder / "photos", 2)
    return folder


def test_every_command_block_is_run_or_says_why_not() -> None:
    unmarked = [
        f"{block.page}:{block.line}"
        for block in blocks()
        if block.language in COMMANDS and not MARKER.fullmatch(block.marker)
    ]
    assert unmarked == []
    assert {block.page for block in RUN} >= {"README.md", "report.md", "training.md", "faq.md"}


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_runs_on_the_demo(reader: Path, tmp_path: Path, block: Block) -> None:
    folder = shutil.copytree(reader, tmp_path / "reader")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert shutil.which("pseudoris", path=path), "install the package: make test does"
    command = ["bash", "-euo", "pipefail", "-c"] if block.language == "bash" else [sys.executable, "-c"]
    environment = {**os.environ, "PATH": path}
    done = subprocess.run([*command, block.text], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"
    assert done.stdout
    if block.page == "training.md":
        before, after = map(float, re.findall(r"loss (\S+) -> (\S+)", done.stdout)[0])
        assert after < before
    if block.page == "README.md":
        assert (folder / "first-look-export" / "refcoco" / "instances.json").is_file()


def test_the_backend_of_the_page_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved as the page says, as a module that Python can import, it finds the objects of a scene."""
    [page] = [block for block in blocks() if block.marker == "<!-- run: backend -->"]
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_detector.py").write_text(page.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    draw_pictures(tmp_path / "photos", 1)
    random = ("--config", REPOSITORY / "configs" / "random.yaml")
    chosen = (
        *random,
        "--set",
        "masks.proposals.backend=my_package.my_detector",
        "--set",
        "masks.proposals.distance=50",
    )
    done = invoke(
        "masks", "--images", tmp_path / "photos", "--work", tmp_path / "work", "--device", "cpu", *chosen
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert rows_of(tmp_path / "work", "masks")
    shown = invoke("config", "show", *chosen, "--json")
    for name in ("my_package.my_detector", "my_package"):
        sys.modules.pop(name, None)
    assert '"masks.proposals.distance": {\n    "value": 50.0' in shown.stdout
