"""The optional detectron2 backend: what happens without the package, and (where it is installed) its agreement."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pseudoris_cli.backends import detectron2
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.settings.models import MaskSettings, Numerics


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    settings = MaskSettings(proposals={"backend": "detectron2", "checkpoint": "random:0"}).proposals
    assert isinstance(settings, detectron2.Settings)
    with pytest.raises(MissingDependency, match=r"third_party/detectron2\.md") as caught:
        detectron2.load(settings, Numerics(), "cpu")
    assert caught.value.exit_code == 3


def test_the_page_that_the_message_names_is_there(repository: Path) -> None:
    assert "parity_cutler.py" in (repository / "third_party/detectron2.md").read_text()


@pytest.mark.skipif(find_spec("detectron2") is None, reason="detectron2 is not installed")
def test_the_package_reproduces_the_recordings(repository: Path) -> None:
    command = [sys.executable, "benchmarks/parity_cutler.py", "tests/fixtures/cutler/seed0", "--backend", "detectron2"]
    subprocess.run(command, cwd=repository, check=True)
