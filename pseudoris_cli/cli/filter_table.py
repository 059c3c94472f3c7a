"""What the filter kept, in a few lines: the release's figures, yield per mask, survival by sampler and crop."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.cli.tables import print_text


def print_filter(figures: dict[str, Any]) -> None:
    """Print the figures of `stages.filter.figures`."""
    scored = figures["scored"]
    print_text(
        f"kept {figures['kept']:,} of {figures['candidates']:,} expressions, for {figures['masks_kept']:,} of "
        f"{figures['masks']:,} masks ({_number(figures['kept_per_mask'], '.1f')} per mask) in {figures['images']:,} images, "
        f"{figures['one_mask_images']:,} of them with one mask (these have no DoC)"
    )
    print_text(
        f"median DoC {_number(figures['median_doc'])}, DoC > 1: {figures['doc_above_1']:,} "
        f"({_number(figures['share_doc_above_1'], '.1%')}) of {scored['doc']:,} candidates with a DoC; median uniqueness "
        f"{_number(figures['median_uniqueness'])} of {scored['uniqueness']:,}, correctness "
        f"{_number(figures['median_correctness'])} of {scored['correctness']:,}"
    )
    for what in ("sampler", "crop"):
        rows = figures[f"by_{what}"].items()
        fractions = ", ".join(f"{name} {_number(row['share'], '.0%')} of {row['candidates']:,}" for name, row in rows)
        print_text(f"candidates with a kept text, by {what}: {fractions}")
    if listener := figures.get("listener"):
        print_text(listener_text(listener))
    if by_hand := figures.get("by_hand"):
        unknown = by_hand.get("unknown", 0)
        fit = f"; {unknown:,} decisions fit no candidate here (no such image, mask or text)" if unknown else ""
        print_text(
            f"by hand: {by_hand['kept']:,} kept, {by_hand['dropped']:,} dropped, {by_hand['changed']:,} of them other than by the "
            f"rules{fit}"
        )
    dropped = ", ".join(f"{reason} {number:,}" for reason, number in figures["reasons"].items())
    if dropped:
        print_text(f"dropped: {dropped}")


def listener_text(figures: dict[str, Any]) -> str:
    """What the listener said, in a line."""
    agrees = ""
    if figures["with_doc"]:
        share = _number(figures["agreement_with_doc"], ".1%")
        agrees = f"; DoC > 1 says the same of {share} of {figures['with_doc']:,} that have a DoC"
    return (
        f"listener: picks the mask for {_number(figures['accuracy'], '.1%')} of {figures['asked']:,} asked, another for "
        f"{_number(figures['share_other'], '.1%')}, none or several for {_number(figures['share_none'], '.1%')}{agrees}"
    )


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else format(value, form)
