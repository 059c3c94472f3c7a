"""The curves that an evaluation adds to the report."""

from __future__ import annotations

import re
from pathlib import Path

from invoking import invoke
from work_maker import WorkMaker

from pseudoris_cli.evaluation.curves import Bin, Calibration, Curve
from pseudoris_cli.evaluation.metrics import Evaluation
from pseudoris_cli.evaluation.resampling import Figure
from pseudoris_cli.evaluation.truth import write_scenes
from pseudoris_cli.report import measured

AT = {"0.95": Figure(None, None, None), "0.6": Figure(0.9, 0.8, 1.0)}


def evaluation() -> Evaluation:
    curves = tuple(
        Curve(method, selector, ((0.2, 1.0), (0.8, 0.5)), AT)
        for method in ("plain", "vlm")
        for selector in ("DoC", "listener")
    )
    bins = (Bin(0.1, 0.25, 4), Bin(0.9, 1.0, 16))
    return Evaluation(1, 1, 1, {}, curves=curves, calibration=(Calibration("vlm", 0.11, bins),))


def test_lines_and_points_lie_where_their_numbers_say() -> None:
    curves, reliability = (figure["chart"] for figure in measured.figures(evaluation()))
    lines = re.findall(r'points="([^"]+)"', curves)
    assert len(lines) == 2, "the last method only"
    width = measured.WIDTH - measured.LEFT - measured.RIGHT
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in lines[0].split())
    assert (x0, x1) == (measured.LEFT + round(0.2 * width, 1), round(measured.LEFT + 0.8 * width, 1))
    assert (y0, y1) == (measured.TOP, measured.HEIGHT - measured.BOTTOM), "from 100 % at the top to the lowest, 50 %"
    assert "90.0 % at 0.6" in curves
    assert "0.95" not in curves
    assert "16 texts: probability 0.90, 100.0 % referring" in reliability
    radii = [float(r) for r in re.findall(r' r="([\d.]+)"', reliability)]
    assert radii == [4.5, 7.0], "by the number of texts"


def test_nothing_measured_adds_nothing() -> None:
    assert measured.figures(None) == []
    assert measured.figures(Evaluation(1, 1, 1, {})) == []


def test_a_report_with_a_truth_has_the_curve_and_one_without_expressions_is_refused(tmp_path: Path) -> None:
    made = WorkMaker(tmp_path / "made", 2)
    made.all()
    truth = write_scenes(tmp_path / "truth", "demo", 2)
    work, page = made.workspace.root, tmp_path / "page.html"
    done = invoke("report", "--work", work, "--out", page, "--truth", truth)
    assert done.code == 0, done.stderr
    assert "Precision against coverage" in page.read_text(encoding="utf-8")
    coco = tmp_path / "instances.json"
    coco.write_text(
        '{"images": [{"id": 1, "file_name": "000000.png", "width": 256, "height": 192}], "annotations": []}'
    )
    refused = invoke("report", "--work", work, "--out", page, "--truth", coco)
    assert (refused.code, "nothing to draw" in " ".join(refused.stderr.split())) == (2, True)
