"""`pseudoris demo` from end to end on a few scenes, with the embedded networks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invoking import invoke


@pytest.mark.timeout(300)
def test_the_demo_measures_every_method_and_writes_what_it_says(demo_run: tuple[Path, str]) -> None:
    folder, printed = demo_run
    figures = json.loads(printed)
    assert figures["images"] == 3
    assert figures["mask_figures"]["recall@.5"]["value"] > 0.7
    methods = {(one["method"], one["selection"]): one["figures"] for one in figures["captions"]}
    names = {"beam", "plain", "distinctive, literal", "distinctive, scale-preserving"}
    selections = ("none", "DoC", "listener", "both")
    assert set(methods) == {(name, selection) for name in names for selection in selections}
    chosen = "distinctive, scale-preserving"
    assert methods[chosen, "none"]["well_formed"]["value"] > 0.9
    none, by_doc, heard = (methods[chosen, name]["referring"]["value"] for name in ("none", "DoC", "both"))
    assert none < by_doc < heard
    assert {one["selector"] for one in figures["curves"]} == {"DoC", "listener", "both"}
    assert [one["ece"] < 0.1 for one in figures["calibration"]] == [True] * 3
    for name in ("scenes/truth.json", "export/refcoco/instances.json", "report.html"):
        assert (folder / name).stat().st_size > 0
    assert "Precision against coverage" in (folder / "report.html").read_text(encoding="utf-8")
    assert "SAM demo, chosen by Cascade R-CNN demo" in (folder / "report.html").read_text(encoding="utf-8")

    table = invoke("evaluate", "--work", folder / "work", "--truth", folder / "scenes" / "truth.json")
    assert table.code == 0
    assert "distinctive, scale-preserving + DoC + listener" in table.stdout
