"""Assign splits and unique ids to images. Neither changes for existing images when new ones are added."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path

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
            raise UsageError(
                f"--split {text!r}: {name} must be a number from 0 to 1, as in {name}=.9, or an existing list file"
            )
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


class Splits:
    """The text of `--split` at work: fractions (`train=.9,val=.1`), or lists of image keys (`val=val.txt,train=*`).

    A list is a file with one key a line; `*` takes the images of no list, and without it they are in no split at all.
    UsageError names what is wrong, an image in two lists included.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lists: dict[str, Path] = {}
        self._names: dict[str, str] = {}
        self._rest: str | None = None
        self._used: set[str] = set()
        self._copies: Mapping[str, str] = {}
        self._of_copies: dict[str, str] = {}
        if not any(_is_list(item) for item in text.split(",")):
            self._fractions: dict[str, float] | None = parse(text)
            return
        self._fractions = None
        for item in text.split(","):
            name, _, where = (piece.strip() for piece in item.partition("="))
            if name not in NAMES:
                raise UsageError(f"--split {text!r}: {name!r} is no split; choose from {', '.join(NAMES)}")
            if name in self._lists or name == self._rest:
                raise UsageError(f"--split {text!r}: {name} is named twice")
            if where == "*" and self._rest is None:
                self._rest = name
            elif where == "*" or not _is_list(item):
                raise UsageError(f"--split {text!r}: write a file for each split, and * for one of them at most")
            else:
                self._lists[name] = Path(where)
                self._add(name, read_names(Path(where), f"--split {name}"))

    def _add(self, name: str, keys: frozenset[str]) -> None:
        twice = sorted(keys & self._names.keys())
        if twice:
            raise UsageError(f"--split: {twice[0]} is in the lists of both {self._names[twice[0]]} and {name}")
        self._names |= dict.fromkeys(keys, name)

    @property
    def several(self) -> bool:
        """Whether there is more than one split, so that copies of an image could come apart."""
        return self._fractions is None or len(self._fractions) > 1

    def keep_together(self, copies: Mapping[str, str]) -> None:
        """Give every file of one image the split of the first, or that of the one that a list names (`storage.copies`)."""
        self._copies = copies
        listed = ((first, self._names[key]) for key, first in copies.items() if key in self._names)
        self._of_copies = dict(reversed(list(listed)))

    def of(self, image_key: str) -> str | None:
        """The split of an image; None if it is in no list."""
        first = self._copies.get(image_key, image_key)
        if self._fractions is not None:
            return assign(first, self._fractions)
        split = self._names.get(image_key, self._of_copies.get(first, self._rest))
        if split is not None:
            self._used.add(split)
        return split

    def check_used(self) -> None:
        """UsageError if a list held none of the keys that were asked about."""
        for name in self._lists.keys() - self._used:
            raise UsageError(
                f"--split: no image is in {self._lists[name]}. Write the images' keys, as `pseudoris export --format jsonl` does "
                "in image_key"
            )

    def digests(self) -> dict[str, str]:
        """sha256 of each list, by split: the text of `--split` names the files, and these are what they hold."""
        held: dict[str, list[str]] = {name: [] for name in self._lists}
        for key, name in self._names.items():
            held[name].append(key)
        return {
            name: hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest() for name, keys in sorted(held.items())
        }


def _is_list(item: str) -> bool:
    """Whether `name=value` names a file instead of a fraction."""
    value = item.partition("=")[2].strip()
    try:
        float(value)
    except ValueError:
        return value == "*" or Path(value).is_file()
    return False


def read_names(path: Path, option: str) -> frozenset[str]:
    """The image keys of a list file, one a line; # begins a comment line. UsageError (exit 2) if it cannot be read or has none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    names = frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not names:
        raise UsageError(f"{option} {path} names no image; write one image key a line")
    return names


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
