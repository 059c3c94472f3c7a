"""The built wheel, installed elsewhere and run from another directory: nothing may depend on the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from locations import REPOSITORY

from pseudoris_cli.settings.resources import PACKAGE


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    root = REPOSITORY
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(build, check=True, capture_output=True, timeout=300)
    (wheel,) = out.glob("pseudoris-*.whl")
    target = out / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def run(installed: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_wheel_carries_its_data_and_no_tests(installed: Path) -> None:
    package = installed / "pseudoris_cli"
    for name in ("configs/fast.yaml", "configs/random.yaml", "third_party/weights.yaml", "py.typed"):
        assert (package / name).is_file(), name
    embedded = {path.name: path.read_bytes() for path in (PACKAGE / "demo" / "weights").iterdir()}
    assert {path.name: path.read_bytes() for path in (package / "demo" / "weights").iterdir()} == embedded
    assert [path.name for path in installed.iterdir() if path.is_dir() and not path.name.endswith(".dist-info")] == [
        "pseudoris_cli"
    ]


def test_it_runs_from_another_directory(installed: Path, tmp_path: Path) -> None:
    where = run(installed, tmp_path, "-c", "import pseudoris_cli; print(pseudoris_cli.__file__)")
    assert where.stdout.startswith(str(installed))
    assert "Usage: pseudoris" in run(installed, tmp_path, "-m", "pseudoris_cli", "--help").stdout
    assert (
        "vit_b  # size of the image encoder, profile fast"
        in run(installed, tmp_path, "-m", "pseudoris_cli", "config", "show", "--profile", "fast").stdout
    )
    listed = run(installed, tmp_path, "-m", "pseudoris_cli", "weights", "list")
    assert listed.returncode == 0
    assert "sam_vit_h" in listed.stdout
