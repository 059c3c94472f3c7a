"""The script that measures a GPU is fit: all its steps run with small networks on a CPU, in time boxes, and say so."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from locations import REPOSITORY

BENCHMARKS = str(REPOSITORY / "benchmarks")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [BENCHMARKS, *sys.path])
    import gpu

    return gpu


@pytest.mark.slow
def test_every_step_with_small_networks(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = script.main(["--out", str(tmp_path), "--tiny"])
    results = json.loads((tmp_path / "results.json").read_text())
    assert code == 0, {name: found["problems"] for name, found in results.items()}
    assert list(results) == list(script.SHARES)
    assert all(found["rows"] for found in results.values())
    told = capsys.readouterr().out
    assert told.rstrip().endswith((tmp_path / "section.md").read_text().rstrip())
    assert "no measurement" in told, "figures of small networks must not be taken for a GPU's"
    masks = results["masks"]["rows"]
    assert [row["form"] for row in masks[:2]] == ["official", "ours"]
    assert masks[1]["equal"] == "yes"
    [released] = [row for row in results["captions"]["rows"] if "released" in row.get("variant", "")]
    same, _, all_of_them = released["equal"].split()
    assert same == all_of_them != "0"
    assert {row["stage"] for row in results["trace"]["rows"]} == {"masks", "proposals", "captions", "scores"}
    assert {row["kind"] for row in results["trace"]["rows"]} == {"whole", "kernel", "gap"}
    assert {row.get("stage") for row in results["pipeline"]["rows"]} >= {"masks", "captions", "scores"}


def test_a_step_that_fails_is_told_and_the_others_go_on(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_steps

    def broken(findings: object) -> None:
        findings.add(precision="bf16", tflops=1.0)  # type: ignore[attr-defined]
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setitem(gpu_steps.STEPS, "products", broken)
    assert script.main(["--out", str(tmp_path), "--tiny", "--only", "products", "environment"]) == 1
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["products"]["problems"] == ["RuntimeError: CUDA error: an illegal memory access was encountered"]
    assert results["products"]["rows"], "what was measured before stays"
    assert results["environment"]["rows"]
    assert "Not as it should be: RuntimeError" in (tmp_path / "section.md").read_text()


def test_steps_in_processes_of_their_own_end_with_their_time(script: ModuleType, tmp_path: Path) -> None:
    code = script.main(["--out", str(tmp_path), "--tiny", "--apart", "--only", "environment", "--minutes", "0.05"])
    assert code == 1
    assert "stopped after its 1 s" in (tmp_path / "section.md").read_text()


def test_without_the_device_nothing_begins(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["--out", str(tmp_path / "out"), "--device", "cuda:63"]) == 2
    assert not (tmp_path / "out").exists()


def test_shares_and_gaps_are_computed_right() -> None:
    sys.path.insert(0, BENCHMARKS)
    try:
        from gpu_section import against_targets, with_shares
        from gpu_trace import summary
    finally:
        sys.path.remove(BENCHMARKS)
    whole, *rest = summary([(0.0, 10.0, "a"), (5.0, 20.0, "b"), (60.0, 100.0, "a")])
    assert (whole["ms"], whole["share"]) == (0.1, 0.6)
    assert [(row["name"], row["share"]) for row in rest if row["kind"] == "kernel"] == [("a", 0.5), ("b", 0.15)]
    assert [(row["name"], row["ms"]) for row in rest if row["kind"] == "gap"] == [("b -> a", 0.04)]
    rows = [
        {"masks": 7, "images_per_s": 5.0, "tflops": 300.0, "of_precision": "bf16"},
        {"masks": 3, "images_per_s": 9.0},
    ]
    assert with_shares(rows, {"bf16": 600.0})[0]["of_peak"] == 0.5
    told = {row["what"]: row for row in against_targets({"captions": {"rows": rows}}, {"bf16": 600.0})}
    assert told["captions, images_per_s"] | {"met": "True", "best": 5.0} == told["captions, images_per_s"]
    assert told["captions, of_peak"]["best"] == 0.5
