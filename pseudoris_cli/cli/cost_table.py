"""What asking a server came to, and for a pilot what the whole source would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pseudoris_cli.cli.console import duration, out

if TYPE_CHECKING:
    from pseudoris_cli.execution.runner import Summary
    from pseudoris_cli.pipeline.session import Session

PriceIn = Annotated[
    float | None, typer.Option("--price-in", min=0, help="money per million tokens that a server reads, for its costs")
]
PriceOut = Annotated[float | None, typer.Option("--price-out", min=0, help="money per million tokens that it writes")]


def costs_of(
    session: Session, summaries: Sequence[Summary], price_in: float | None, price_out: float | None
) -> dict[str, dict[str, Any]]:
    """By stage what its server was asked and what that costs; only stages that asked one."""
    found = {
        one.stage: _figures(session, one.stage, one.version, price_in, price_out)
        for one in summaries
        if one.stage in ("captions", "judge")
    }
    return {stage: figures for stage, figures in found.items() if figures}


def _figures(
    session: Session, stage: str, version: str, price_in: float | None, price_out: float | None
) -> dict[str, Any] | None:
    """Of a version made by a server: counts, and for a pilot the same of the whole source; None for other versions."""
    from pseudoris_cli.endpoint import usage
    from pseudoris_cli.storage.plan import PLAN

    artifact = session.workspace.artifact(stage, version)
    entries = list(artifact.manifest().entries.values())
    counts = usage.total(entry.notes.get("requests", {}) for entry in entries)
    if not any("requests" in entry.notes for entry in entries):
        return None
    rejected = usage.total(entry.notes.get("rejected", {}) for entry in entries)
    failed = sum(len(masks) for entry in entries for masks in entry.notes.get("failed_masks", {}).values())
    figures: dict[str, Any] = {**counts, "rejected": dict(rejected), "failed_masks": failed}
    prices = usage.Prices(price_in or 0.0, price_out or 0.0) if price_in is not None or price_out is not None else None
    if prices:
        figures["money"] = prices.cost(counts["tokens_in"], counts["tokens_out"])
    if artifact.plan_name != PLAN:
        images = sum(entry.counts.get("done", 0) + entry.counts.get("empty", 0) for entry in entries)
        whole = usage.extrapolated(
            counts, images, sum(1 for _ in session.source.images()), sum(entry.seconds for entry in entries)
        )
        if prices:
            whole["money"] = prices.cost(whole["tokens_in"], whole["tokens_out"])
        figures["whole_source"] = whole
    return figures


def total_cost(by_stage: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The costs of all stages together, with those of each as `by_stage` where there are several; None without any."""
    from pseudoris_cli.endpoint import usage

    if len(by_stage) < 2:
        return next(iter(by_stage.values()), None)
    found: dict[str, Any] = dict(usage.total(by_stage.values()))
    wholes = [figures["whole_source"] for figures in by_stage.values() if "whole_source" in figures]
    if wholes:
        found["whole_source"] = dict(usage.total(wholes)) | {"images": wholes[0]["images"]}
    return found | {"by_stage": dict(by_stage)}


def print_cost(figures: dict[str, Any], stage: str) -> None:
    """In lines."""
    asked = f"asked: {_counts(figures)}"
    if figures.get("repairs"):
        asked += f", {figures['repairs']:,} of them again for a usable answer"
    if figures.get("without_usage"):
        asked += f"; {figures['without_usage']:,} without a count of tokens"
    out.print(f"  {asked}", markup=False)
    for reason, count in figures["rejected"].items():
        out.print(f"  left out: {count:,} expressions: {reason}", markup=False)
    if figures["failed_masks"]:
        lack = "no expression" if stage == "captions" else "a question without an answer"
        out.print(
            f"  {figures['failed_masks']:,} masks have {lack} (the manifest says why); --retry-failed asks again",
            markup=False,
        )
    if whole := figures.get("whole_source"):
        out.print(
            f"  the whole source, {whole['images']:,.0f} images like these: {_counts(whole)}, about "
            f"{duration(3600 * whole['hours'])} at this pace",
            markup=False,
        )


def _counts(figures: dict[str, Any]) -> str:
    tokens = f"{figures.get('tokens_in', 0):,.0f} tokens in, {figures.get('tokens_out', 0):,.0f} out"
    money = f", costs {figures['money']:,.2f}" if "money" in figures else ""
    return f"{figures.get('requests', 0):,.0f} requests, {tokens}{money}"
