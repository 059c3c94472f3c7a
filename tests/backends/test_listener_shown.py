"""What is shown of a listener's answers: costs, summary, status, report, exports and their card; and one model on both sides."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from invoking import invoke, rows_of
from vlm_proxy import Proxy
from vlm_work import common, draw_images, write_config

from pseudoris_cli.cli.filter_table import listener_text
from pseudoris_cli.method import filter_summary


@pytest.fixture
def judged(tmp_path: Path, vlm_proxy: Proxy) -> Path:
    """A pilot of which captions and judge are asked of the same model: masks to filter."""
    draw_images(tmp_path, 4, 2)
    write_config(tmp_path / "settings.yaml", vlm_proxy.url, temperature=1.0)
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    settings["filter"] |= {
        "clamp": False,
        "min_listener": 0.0,
        "judge": {"backend": "listener_vlm", "endpoint": vlm_proxy.url, "max_side": 256},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def test_everything_that_shows_a_listener(judged: Path) -> None:
    run = invoke("run", *common(judged), "--images", judged / "images", "--price-in", "1000000", "--json", "--out", judged / "out",
                 "--format", "hf", "--format", "jsonl", "--format", "webdataset")  # fmt: skip
    assert run.code == 0, run.stderr
    told = json.loads(run.stdout)
    rows = rows_of(judged / "work", "filter")
    asked = [row for row in rows if row["listener"] != "nan"]
    picked = [row for row in asked if int(float(row["listener_choice"])) == row["mask_id"]]
    heard = told["filter"]["listener"]
    assert (heard["asked"], heard["accuracy"]) == (len(asked), pytest.approx(len(picked) / len(asked)))
    assert heard["accuracy"] + heard["share_other"] + heard["share_none"] == pytest.approx(1)
    cost, parts = told["cost"], told["cost"]["by_stage"]
    assert set(parts) == {"captions", "judge"}
    assert parts["judge"]["requests"] >= 4 * 2, "an image and numbering"
    for name in ("requests", "tokens_in", "money"):
        assert cost[name] == parts["captions"][name] + parts["judge"][name]
    status = invoke("status", "--work", judged / "work").stdout
    assert "listener: picks the mask for" in " ".join(status.split())
    assert invoke("report", "--work", judged / "work", "--out", judged / "r.html").code == 0
    page = (judged / "r.html").read_text()
    for shown in (
        "listener picks it",
        "One model on both sides",
        '"id":"listener"',
        '"id":"choice"',
        "listener tiny-vlm",
    ):
        assert shown in page, shown
    [file] = (judged / "out").glob("data/*.parquet")
    for image in pq.read_table(file).to_pylist():
        for one in image["objects"]:
            assert len(one["listener"]) == len(one["sentences"])
    lines = [json.loads(line) for line in (judged / "out/train.jsonl").read_text().splitlines()]
    said = {s["caption"]: s["listener"] for line in lines for s in line["sentences"]}
    assert said
    assert all(value > 0 for value in said.values())
    with tarfile.open(judged / "out/train-000000.tar") as tar:
        packed = [json.load(tar.extractfile(member)) for member in tar]  # type: ignore[arg-type]
    again = {
        c: p for row in packed for obj in row["objects"] for c, p in zip(obj["sentences"], obj["listener"], strict=True)
    }
    assert again == said
    card = (judged / "out/README.md").read_text()
    assert "captioner and listener are the same model (tiny-vlm)" in card
    assert "| filter.judge | listener_vlm | tiny-vlm |" in card


def test_a_pilot_adds_up_the_judge(judged: Path) -> None:
    pilot = ("--pilot", "2", *common(judged))
    assert invoke("masks", *pilot, "--images", judged / "images").code == 0
    assert invoke("captions", *pilot).code == 0
    done = invoke("filter", *pilot, "--price-in", "1000000", "--json")
    assert done.code == 0, done.stderr
    cost = json.loads(done.stdout)["cost"]
    assert cost["whole_source"]["images"] == 4
    assert cost["whole_source"]["requests"] == 2 * cost["requests"]
    assert cost["whole_source"]["money"] == pytest.approx(2 * cost["money"])
    again = invoke("filter", *pilot).stdout
    assert f"the whole source, 4 images like these: {2 * cost['requests']} requests" in again


def test_figures_of_what_was_heard() -> None:
    columns = {
        "image_key": ["a"] * 6,
        "mask_id": [0, 0, 0, 1, 1, 1],
        "caption": list("abcdef"),
        "correctness": [0.1] * 6,
        "uniqueness": [1.0] * 6,
        "doc": [1.5, 1.5, 0.5, 0.5, np.nan, 1.5],
        "flags": [""] * 6,
        "sampler": ["x"] * 6,
        "crop": ["y"] * 6,
        "kept": [True] + [False] * 5,
        "reason": [""] + ["listener other"] * 5,
        "listener": [0.9, 0.1, 0.1, 0.2, 0.6, np.nan],
        "listener_choice": [0, 1, -1, 0, 1, np.nan],
    }
    found = filter_summary.figures(filter_summary.add(filter_summary.count(columns), {}))["listener"]
    assert (found["asked"], found["with_doc"]) == (5, 4)
    assert (found["accuracy"], found["share_other"], found["share_none"]) == (2 / 5, 2 / 5, 1 / 5)
    assert found["agreement_with_doc"] == 3 / 4, "one that DoC likes and the listener takes for another"
    assert "40.0% of 5 asked" in listener_text(found)
    del columns["listener"], columns["listener_choice"]
    assert "listener" not in filter_summary.figures(filter_summary.count(columns))
