"""Files that hold the same image, told by the digest of their bytes: a split must not have one of them in train and one in test."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from pseudoris_cli.storage.manifest import Manifest


def copies(masks: Manifest) -> dict[str, str]:
    """The key of every image whose bytes another has too, with the key of the first of them in plan order (which has itself).

    Eight bytes of memory an image, and more for copies only.
    """
    marks = array("Q", (mark for _, mark in _digests(masks)))
    values, counts = np.unique(np.frombuffer(marks, np.uint64), return_counts=True)
    several = set(values[counts > 1].tolist())
    first: dict[int, str] = {}
    return {key: first.setdefault(mark, key) for key, mark in _digests(masks) if mark in several} if several else {}


def count_copies(masks: Manifest) -> int:
    """How many files hold an image that a file before them holds."""
    return sum(key != first for key, first in copies(masks).items())


def _digests(masks: Manifest) -> Iterator[tuple[str, int]]:
    for _, entry in sorted(masks.entries.items()):
        for image in entry.images:
            if image.sha256:
                yield image.key, int(image.sha256[:16], 16)
