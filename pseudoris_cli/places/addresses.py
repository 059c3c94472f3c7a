"""What a user may write for a place: a path, a pattern of paths, or a URL. Nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from pseudoris_cli.errors import UsageError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MAGIC = re.compile(r"[*?\[]")
MOST_NAMES = 1_000_000
"""Names that braces may stand for."""


def is_url(text: str) -> bool:
    """Whether it is a URL, such as `s3://bucket/folder`."""
    return bool(_URL.match(text))


def is_pattern(text: str) -> bool:
    """Whether it stands for several names: by `*`, `?`, `[...]`, or braces as in `{00000..00099}.tar`."""
    return bool(_MAGIC.search(text) or _BRACES.search(text))


def has_wildcard(text: str) -> bool:
    """Whether names must be looked up to know what it stands for."""
    return bool(_MAGIC.search(text))


def checked_url(text: str) -> str:
    """The URL without a slash at its end. UsageError for one with a password or a query in it: it would be written down."""
    parts = urlsplit(text)
    if "@" in parts.netloc or (parts.scheme in ("http", "https") and "?" in text):
        raise UsageError(
            f"--images {parts.scheme}://...: an address with a user, password or query may hold a secret, and the work directory "
            "would record it. Give credentials where the server's own tools look for them (environment, ~/.aws, fsspec's "
            "configuration) and name the address without them"
        )
    return text.rstrip("/")


def split_pattern(text: str) -> tuple[str, str]:
    """The folder before the first special character of a pattern, and the rest."""
    first = min(match.start() for match in (_MAGIC.search(text), _BRACES.search(text)) if match)
    folder, slash, _ = text[:first].rpartition("/")
    return folder, text[len(folder + slash) :]


def expand_braces(text: str) -> Iterator[str]:
    """The names that braces stand for, in order: `{a,b}`, `{08..11}` with its leading zeros. UsageError for too many."""
    found = _BRACES.search(text)
    if not found:
        yield text
        return
    for value in _values(found[1]):
        yield from expand_braces(text[: found.start()] + value + text[found.end() :])


def _values(inner: str) -> Iterator[str]:
    if not (numbers := _RANGE.fullmatch(inner)):
        yield from inner.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    if abs(last - first) >= MOST_NAMES:
        raise UsageError(f"the braces {{{inner}}} stand for more than {MOST_NAMES:,} names")
    width = max(map(len, numbers.groups())) if any(n.startswith("0") and len(n) > 1 for n in numbers.groups()) else 0
    for number in range(first, last + 1) if first <= last else range(first, last - 1, -1):
        yield f"{number:0{width}}"
