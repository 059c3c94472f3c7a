"""`pseudoris plan`: index and plan only; what follows starts from them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke
from packed import KINDS, pack, pictures_in

from pseudoris_cli.storage.workspace import Workspace


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, bytes]:
    draw_pictures(tmp_path / "loose", 6)
    return pictures_in(tmp_path / "loose")


@pytest.mark.parametrize("kind", KINDS)
def test_shards_start_from_a_plan_made_elsewhere(kind: str, pictures: dict[str, bytes], tmp_path: Path) -> None:
    images, work = pack(kind, pictures, tmp_path / kind), tmp_path / "work"
    done = invoke("plan", "--work", work, "--images", images, "--set", "source.part_size=2", "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == {"images": 6, "new": 6, "parts": 3, "left_out": {}}
    assert len(list((work / "source-index").glob("*.json"))) == 2
    before = (work / "plan.jsonl").read_bytes()
    for path in (work / "source-index").glob("*"):
        path.unlink()
    run = ("masks", "--work", work, "--profile", "random", "--device", "cpu", "-q", "--json")
    shard = invoke(*run, "--shard", "1/3")
    assert shard.code == 0, shard.stderr
    assert sum(json.loads(shard.stdout)["stages"][0]["counts"].values()) == 2
    assert not list((work / "source-index").glob("*.json")), "only the shard that leads lists the images"
    assert (work / "plan.jsonl").read_bytes() == before
    assert invoke(*run).code == 0
    assert (work / "plan.jsonl").read_bytes() == before
    assert len(Workspace(work).latest("masks").manifest().entries) == 3


def test_new_images_join_and_what_is_left_out_is_told(pictures: dict[str, bytes], tmp_path: Path) -> None:
    work, loose = tmp_path / "work", tmp_path / "loose"
    assert (
        "4 images in 1 parts, 4 of them new" in invoke("plan", "--work", work, "--images", loose, "--limit", "4").stdout
    )
    (loose / "a.heic").write_bytes(b"")
    done = invoke("plan", "--work", work)
    assert "6 images in 2 parts, 2 of them new" in done.stdout
    assert "left out: 1 of a kind that is not read: HEIC" in done.stderr
    assert "0 of them new" in invoke("plan", "--work", work, "-q").stdout
    assert invoke("plan", "--work", work, "--images", tmp_path).code == 2
    assert invoke("plan", "--work", tmp_path / "other", "--images", tmp_path / "nowhere").code == 2


def test_no_network_is_loaded(pictures: dict[str, bytes], tmp_path: Path) -> None:
    call = ["plan", "--work", str(tmp_path / "work"), "--images", str(tmp_path / "loose"), "--profile", "paper"]
    code = f"import sys\nsys.argv = ['pseudoris', *{call}]\nfrom pseudoris_cli.__main__ import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "6 images" in done.stdout
