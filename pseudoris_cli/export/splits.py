"""Assign splits and unique ids to images. Neither changes for existing images when new ones are added."""

from __future__ import annotations

import hashlib
import math
from itertools import accumulate

from pseudoris_cli.errors import UsageError

NAMES = ("train", "val", "test", "testA", "testB", "testC")
"""The only split names that REFER tells apart: it looks for the letters A, B, C anywhere in a name."""


def parse(text: str) -> dict[str, float]:
    """`train=.9,val=.1` as fractions that sum to 1, in the order given. Raises UsageError naming what is wrong."""
    fractions: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (piece.strip() for piece in item.partition("="))
        if name not in NAMES:
            raise UsageError(f"--split {text!r}: {name!r} is no split; choose from {', '.join(NAMES)}")
        if name in fractions:
            raise UsageError(f"--split {text!r}: {name} is named twice")
        try:
            fraction = float(number)
        except ValueError:
            fraction = math.nan
        if not 0 <= fraction <= 1:
            raise UsageError(f"--split {text!r}: the fraction of {name} must be a number from 0 to 1, as in {name}=.9")
        fractions[name] = fraction
    if not math.isclose(sum(fractions.values()), 1, abs_tol=1e-6):
        raise UsageError(f"--split {text!r}: the fractions sum to {sum(fractions.values()):g}, not to 1")
    return fractions


def assign(image_key: str, fractions: dict[str, float]) -> str:
    """The split of an image: a hash of its key, compared with the cumulative fractions. It depends on no other image."""
    position = _hash(image_key, "split") / 2**52
    for name, end in zip(fractions, accumulate(fractions.values()), strict=True):
        if position < end:
            return name
    return next(name for name in reversed(fractions) if fractions[name] > 0)


class ImageIds:
    """Unique positive image ids, given in plan order: the first image that asks for an id gets it.

    A later image gets the first free 52-bit hash of its key. New images are planned last, so existing ids never change.
    Memory: one set of ints.
    """

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, key: str, wanted: int) -> int:
        """The id of the next image of the plan."""
        image_id, attempt = int(wanted), 0
        while image_id in self._taken or image_id <= 0:
            attempt += 1
            image_id = _hash(key, f"id {attempt}")
        self._taken.add(image_id)
        return image_id


def _hash(key: str, purpose: str) -> int:
    """52 bits of BLAKE2b, which a float represents exactly."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose.encode()[:16]).digest()
    return int.from_bytes(digest, "big") >> 12
