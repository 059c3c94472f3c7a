"""Decisions made by hand, laid over what the rules of the filter chose: a hand wins, either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

BY_HAND = "by hand"


def apply(
    columns: dict[str, Any], chosen: dict[str, np.ndarray], decided: Mapping[tuple[str, int, str], bool]
) -> dict[str, int]:
    """Change `kept` and `reason` of `chosen` (as selection.select returned it) in place where a text of a mask was decided on.

    `decided` maps (image key, mask id, text without outer spaces) to keep or drop. It applies to the first row with that text;
    the others stay duplicates. Returns how many decisions were applied: `kept`, `dropped`, and `changed`, those that the rules
    would have answered otherwise.
    """
    counts = {"kept": 0, "dropped": 0, "changed": 0}
    images = {image for image, _, _ in decided}
    seen: set[tuple[str, int, str]] = set()
    for row, image in enumerate(columns["image_key"]):
        if image not in images:
            continue
        key = (image, int(columns["mask_id"][row]), columns["caption"][row].strip())
        if key in seen or key not in decided:
            continue
        seen.add(key)
        keep = decided[key]
        counts["kept" if keep else "dropped"] += 1
        counts["changed"] += bool(chosen["kept"][row]) != keep
        chosen["kept"][row], chosen["reason"][row] = keep, BY_HAND
    return counts
