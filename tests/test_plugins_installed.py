"""Plug-ins of an installed package: listed, run and named in the version, by entry point and by dotted path."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from invoking import draw_pictures
from locations import FIXTURES, REPOSITORY

OWNER = "pseudoris-example 0.1.0"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, built and installed into a folder of its own (an editable install would show in all other tests)."""
    out = tmp_path_factory.mktemp("plugin")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    subprocess.run([*command, str(FIXTURES / "example_plugin")], check=True, capture_output=True, timeout=300)
    [wheel] = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


@pytest.fixture(scope="module")
def pseudoris(installed: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(REPOSITORY)]), "COLUMNS": "200"}

    def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "pseudoris_cli", *map(str, words)]
        done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of image paths, which only the plug-in reads."""
    folder = tmp_path_factory.mktemp("source")
    draw_pictures(folder / "images", 2)
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "remark"), ("images/000.png", "a"), ("images/001.png", "b")])
    return folder / "images.csv"


def random_run(work: Path, source: Path, *more: str | Path) -> list[str | Path]:
    config = ("--config", REPOSITORY / "configs" / "random.yaml", "--device", "cpu", "-q")
    return ["run", "--images", source, "--work", work, *config, *more]


def test_they_are_listed(pseudoris) -> None:
    assert f"colours ({OWNER})" in pseudoris("captions", "--help").stdout
    assert f"csv_paths ({OWNER})" in pseudoris("masks", "--help").stdout
    assert f"tsv ({OWNER})" in pseudoris("export", "--help").stdout
    shown = pseudoris("config", "show", "--set", "captions.backend=colours").stdout
    assert "  backend: colours  # who writes the expressions" in shown
    assert re.search(rf"backend: colours .*one of: .*\bcoca, .*{re.escape(f'colours ({OWNER})')}", shown)
    assert "side: 0.4  # fraction of the image's width" in shown
    choices = json.loads(pseudoris("config", "show", "--json").stdout)["captions.backend"]["choices"]
    assert {"coca", f"colours ({OWNER})"} <= set(choices)


def test_they_run_and_are_named(pseudoris, source: Path, tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    chosen = (
        "--set",
        "captions.backend=colours",
        "--set",
        "filter.min_doc=0",
        "--format",
        "tsv",
        "--format",
        "refcoco",
    )
    pseudoris(*random_run(work, source, *chosen, "--out", out))
    description = json.loads((work / "source.json").read_text())
    assert (description["kind"], description["plug_in"]) == ("csv_paths", OWNER)
    [header] = [json.loads(path.read_text()) for path in work.glob("captions/*/artifact.json")]
    assert header["settings"]["backend"] == "colours"
    assert header["checkpoints"]["captions"]["plug_in"] == OWNER
    lines = (out / "train.tsv").read_text().splitlines()
    assert lines[0].split("\t")[:2] == ["ref_id", "image"]
    assert len(lines) > 1
    refs = json.loads((out / "refcoco" / "refs(pseudo).json").read_text())
    assert {ref["image_id"] for ref in refs}
    made = json.loads((out / "pseudoris-export.json").read_text())
    assert made["export"]["plug_ins"] == {"tsv": OWNER}
    assert any(row["setting"] == "captions" and row["digest"] == OWNER for row in made["weights"])
    pseudoris("report", "--work", work, "-q")
    again = pseudoris(*random_run(work, source, *chosen, "--out", out)).stdout
    assert again.count("nothing to do") == 5
    assert "up to date" in again


def test_a_dotted_path_needs_no_entry_point(pseudoris, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    dotted = ("--set", "captions.backend=pseudoris_example.captioner", "--source-kind", "pseudoris_example.source")
    pseudoris(*random_run(work, source, *dotted))
    [header] = [json.loads(path.read_text()) for path in work.glob("captions/*/artifact.json")]
    assert header["settings"]["backend"] == "pseudoris_example.captioner"
    assert header["checkpoints"]["captions"]["plug_in"] == OWNER
    assert json.loads((work / "source.json").read_text())["kind"] == "pseudoris_example.source"
    formats = ("export", "--work", work, "--config", REPOSITORY / "configs" / "random.yaml", *dotted[:2])
    out = tmp_path / "out"
    pseudoris(*formats, "--format", "pseudoris_example.export_format", "--out", out, "--device", "cpu", "-q")
    assert (out / "train.tsv").is_file()


def test_a_captioner_is_no_detector(pseudoris) -> None:
    wrong = pseudoris("config", "show", "--set", "masks.proposals.backend=colours", code=2).stderr
    assert "'colours' is a captioner, not a proposer; choose from cascade_rcnn" in wrong


def test_without_the_package_the_work_directory_says_what_is_missing(pseudoris, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    pseudoris("masks", *random_run(work, source)[1:])
    call = [sys.executable, "-m", "pseudoris_cli", "captions", "--work", str(work), "-q", "--device", "cpu"]
    config = ["--config", str(REPOSITORY / "configs" / "random.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([*call, *config], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "there is no kind of source 'csv_paths'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_contract_holds_for_it(installed: Path, tmp_path: Path) -> None:
    """The contract test of our own backends, with the package installed, checks its captioner too."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(REPOSITORY)])}
    call = [sys.executable, "-m", "pytest", "-k", "colours", "tests/backends/test_contract.py"]
    done = subprocess.run(call, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
