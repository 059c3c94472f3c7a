"""Which split an image is in, and what happens to image ids that collide: both stay as they are when the data grows."""

from __future__ import annotations

import hashlib
import math
from itertools import accumulate

from pseudoris_cli.errors import UsageError

NAMES = ("train", "val", "test", "testA", "testB", "testC")
"""The only split names that REFER tells apart: it looks for the letters A, B, C anywhere in a name."""


def parse(text: str) -> dict[str, float]:
    """`train=.9,val=.1` as shares that sum to 1, in the order given; UsageError says what is wrong with it."""
    shares: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = (piece.strip() for piece in item.partition("="))
        if name not in NAMES:
            raise UsageError(f"--split {text!r}: {name!r} is no split; choose from {', '.join(NAMES)}")
        if name in shares:
            raise UsageError(f"--split {text!r}: {name} is named twice")
        try:
            share = float(number)
        except ValueError:
            share = math.nan
        if not 0 <= share <= 1:
            raise UsageError(f"--split {text!r}: the share of {name} must be a number from 0 to 1, as in {name}=.9")
        shares[name] = share
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise UsageError(f"--split {text!r}: the shares sum to {sum(shares.values()):g}, not to 1")
    return shares


def assign(image_key: str, shares: dict[str, float]) -> str:
    """The split of an image: a hash of its key against the running sum of the shares. Other images play no part."""
    place = _hash(image_key, "split") / 2**52
    for name, end in zip(shares, accumulate(shares.values()), strict=True):
        if place < end:
            return name
    return next(name for name in reversed(shares) if shares[name] > 0)


class ImageIds:
    """Unique positive image ids, given in plan order: the first to want an id gets it.

    Who comes later takes the next 52-bit hash of its key that is free. New images are planned last, so the ids of an
    export never change under growth. Memory: one set of ints.
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
    """52 bits of BLAKE2b, so that the result is exact as a float."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose.encode()[:16]).digest()
    return int.from_bytes(digest, "big") >> 12
