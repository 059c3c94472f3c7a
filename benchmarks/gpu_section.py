"""The findings of gpu.py as a Markdown section for benchmarks/RESULTS.md, with the targets beside them."""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]
TARGETS = {"masks": ("images_per_s", 8.0), "captions": ("images_per_s", 4.0), "scores": ("images_per_s", 40.0)}
"""Step -> figure and target on an H200 (AMG ViT-H, captions of 7 masks, scoring)."""
SHARE = 0.4
"""Of the matrix-product peak, for captions of 7 masks."""
TITLES = {
    "environment": "The machine",
    "products": "Matrix products",
    "masks": "Automatic masks, ViT-H",
    "proposals": "Proposals, R50-FPN",
    "captions": "Captions, ViT-L/14",
    "scores": "Scores, CLIP RN50",
    "pipeline": "The whole pipeline",
    "trace": "Where the time of one image goes",
}


def section(results: dict[str, Any], tiny: bool) -> str:
    """All steps that have run; figures of tiny networks are marked as no measurement."""
    lines = ["## GPU", ""]
    lines += ["A trial of the script with small networks: no measurement.", ""] if tiny else []
    lines += ["`python benchmarks/gpu.py`, random weights of full size unless a line says otherwise.", ""]
    peaks = {row["precision"]: row["tflops"] for row in results.get("products", {"rows": []})["rows"]}
    for name, found in results.items():
        lines += [f"### {TITLES[name]}", ""]
        lines += table(with_shares(found["rows"], peaks))
        lines += [f"Not as it should be: {problem}" for problem in found["problems"]]
        lines += ["", f"({found['seconds']} s)", ""]
    if not tiny:
        lines += ["### Against the targets", "", *table(against_targets(results, peaks))]
    return "\n".join(lines).rstrip() + "\n"


def with_shares(rows: Rows, peaks: dict[str, float]) -> Rows:
    """Rows with operations get their share of the measured peak of their precision."""
    found = []
    for row in rows:
        peak = peaks.get(row.get("of_precision", ""))
        shown = {key: value for key, value in row.items() if key != "of_precision"}
        found.append(shown | {"of_peak": row["tflops"] / peak} if peak and row.get("tflops") else shown)
    return found


def table(rows: Rows) -> list[str]:
    """Tables of rows of equal keys that follow each other."""
    lines: list[str] = []
    keys: list[str] = []
    for row in rows:
        if list(row) != keys:
            keys = list(row)
            lines += (
                ["", *_line(keys), *_line(["---"] * len(keys))]
                if lines
                else [*_line(keys), *_line(["---"] * len(keys))]
            )
        lines += _line([_cell(key, value) for key, value in row.items()])
    return [*lines, ""]


def against_targets(results: dict[str, Any], peaks: dict[str, float]) -> Rows:
    """The best figure of each target that was measured."""
    found: Rows = []
    for step, (figure, target) in TARGETS.items():
        rows = [row for row in results.get(step, {"rows": []})["rows"] if figure in row]
        rows = [row for row in rows if row.get("masks", 7) == 7 and row.get("form") != "official"]
        if rows:
            best = max(rows, key=lambda row: row[figure])
            found.append(
                {
                    "what": f"{step}, {figure}",
                    "target": target,
                    "best": best[figure],
                    "met": str(best[figure] >= target),
                }
            )
    shares = [row for row in with_shares(results.get("captions", {"rows": []})["rows"], peaks) if row.get("masks") == 7]
    best_share = max((row.get("of_peak", 0.0) for row in shares), default=None)
    if best_share is not None:
        found.append(
            {"what": "captions, of_peak", "target": SHARE, "best": best_share, "met": str(best_share >= SHARE)}
        )
    return found


def _line(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |"]


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0%}" if key in ("share", "of_peak", "gpu_busy") else f"{value:.4g}"
    return str(value).replace("|", "/")
