"""What the filter kept, in a few lines: the release's figures, yield per mask, survival by sampler and crop."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.cli.console import out


def print_filter(figures: dict[str, Any]) -> None:
    """Print the figures of `stages.filter.figures`."""
    out.print(
        f"kept {figures['kept']:,} of {figures['candidates']:,} expressions, for {figures['masks_kept']:,} of "
        f"{figures['masks']:,} masks ({_number(figures['kept_per_mask'], '.1f')} per mask) in {figures['images']:,} images, "
        f"{figures['one_mask_images']:,} of them with one mask",
        markup=False,
    )
    out.print(
        f"mean DoC {_number(figures['mean_doc'])}, uniqueness {_number(figures['mean_uniqueness'])}, "
        f"correctness {_number(figures['mean_correctness'])}; DoC > 1: {figures['doc_above_1']:,} "
        f"({_number(figures['share_doc_above_1'], '.1%')})",
        markup=False,
    )
    for what in ("sampler", "crop"):
        fractions = ", ".join(f"{name} {_number(row['share'], '.0%')}" for name, row in figures[f"by_{what}"].items())
        out.print(f"candidates with a kept text, by {what}: {fractions}", markup=False)
    dropped = ", ".join(f"{reason} {number:,}" for reason, number in figures["reasons"].items())
    if dropped:
        out.print(f"dropped: {dropped}", markup=False)


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
