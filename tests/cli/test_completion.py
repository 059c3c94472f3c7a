"""What the shell offers after Tab, asked as bash asks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_server import SMALL
from invoking import draw_pictures, invoke

from pseudoris_cli.cli.completion import assignments
from pseudoris_cli.settings.resolve import PROFILES, resolve

REPOSITORY = Path(__file__).resolve().parents[2]


def offered(line: str, cwd: Path) -> list[str]:
    """What is offered at the end of a command line; a last word that is empty needs its space."""
    words = line.split(" ")
    code = "from pseudoris_cli.__main__ import main; main()"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_PSEUDORIS_COMPLETE": "complete_bash"}
    environment = {**os.environ, **asked, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("pseudoris run --profile ", list(PROFILES)),
        ("pseudoris weights fetch --profile ra", ["random"]),
        ("pseudoris export --format ref", ["refcoco", "reference-csv"]),
        ("pseudoris run --export-images c", ["copy"]),
        ("pseudoris run --source-kind list", ["listing"]),
        ("pseudoris weights fetch sam_vit_", ["sam_vit_h", "sam_vit_l", "sam_vit_b"]),
        ("pseudoris weights verify clip_", ["clip_rn50", "clip_laion2b_b16"]),
        (
            "pseudoris captions --set captions.contrast_f",
            ["captions.contrast_form=literal", "captions.contrast_form=scale_preserving"],
        ),
        ("pseudoris filter --set filter.clamp", ["filter.clamp=true", "filter.clamp=false"]),
        ("pseudoris captions --from ", []),
        ("pseudoris capt", ["captions"]),
    ],
)
def test_values_are_offered(tmp_path: Path, line: str, wanted: list[str]) -> None:
    assert offered(line, tmp_path) == wanted


def test_versions_of_the_stage_before_are_offered(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    work = tmp_path / "work"
    assert invoke("masks", "-q", "--images", tmp_path / "images", "--work", work, *SMALL).code == 0
    assert invoke("captions", "-q", "--work", work, *SMALL).code == 0
    masks, captions = ((work / stage / "current").read_text().strip() for stage in ("masks", "captions"))
    assert offered(f"pseudoris captions --work {work} --from ", tmp_path) == [masks]
    assert offered(f"pseudoris filter --work {work} --from ", tmp_path) == [captions]
    assert sorted(offered(f"pseudoris report --work {work} --from ", tmp_path)) == sorted([masks, captions])
    (work / "masks" / masks / "artifact.json").write_text("{")
    assert offered(f"pseudoris captions --work {work} --from ", tmp_path) == [], "a damaged directory offers nothing"


def test_every_offered_setting_can_be_set() -> None:
    """As it stands, for each of them."""
    offers = assignments("")
    assert len(offers) > 60
    names = {offer.partition("=")[0] for offer, _ in offers}
    assert {name for name, _, _ in resolve().rows()} == names
    for offer, meaning in offers:
        assert meaning, offer
        assert " " not in offer
        if ".backend=" not in offer:  # some of them need a setting more
            resolve(assignments=[offer])
