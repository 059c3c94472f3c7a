"""Text that other programs wrote: UTF-8, with or without a byte order mark, and UTF-16 and UTF-32 in both orders.

Windows' editors and PowerShell write all of these. An 8-bit encoding (latin-1, windows-1252) is refused: which of them it is
cannot be seen, and a wrong guess gives wrong names in silence.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like the mark of UTF-16, so it is asked first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LOOKED_AT = 4096


def encoding_of(head: bytes) -> str | None:
    """The encoding of a text, told from its first bytes; None for what is no text.

    Without a mark UTF-16 shows by its zeros: the high halves of ASCII characters, all at odd or all at even places.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    head = head[: _LOOKED_AT // 2 * 2]
    if b"\0" not in head:
        return "utf-8"
    even, odd = head[0::2], head[1::2]
    for name, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if b"\0" in high and b"\0" not in low and high.count(0) * 3 > len(high):
            return name
    return None


def decode(data: bytes) -> str:
    """Bytes as text. ValueError says where and why they are none."""
    name = encoding_of(data[:_LOOKED_AT])
    if name is None:
        raise ValueError("it holds zero bytes, so it is no text")
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        raise ValueError(_undecodable(error, name, data.count(b"\n", 0, error.start) + 1)) from error


def _undecodable(error: UnicodeDecodeError, name: str, line: int) -> str:
    if name.startswith("utf-8"):
        return (
            f"near line {line} it is not UTF-8 (byte 0x{error.object[error.start]:02x}); it may be latin-1 or another 8-bit "
            "encoding: save the file as UTF-8"
        )
    return f"it begins as {name.upper()}, but near line {line} it is not; save the file as UTF-8"


def lines(path: Path, what: str) -> Iterator[str]:
    """The lines of a text file, without their ends; memory does not grow with the file. UsageError as of `read_text`."""
    number = 0
    try:
        with path.open("rb") as file:
            name = encoding_of(file.read(_LOOKED_AT))
        if name is None:
            raise ValueError("it holds zero bytes, so it is no text")
        with path.open(encoding=name) as text:
            for number, line in enumerate(text, 1):  # noqa: B007  # told in the error below
                yield line.removesuffix("\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be read as {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        at = number + error.object.count(b"\n", 0, error.start) + 1  # it was decoded in blocks
        raise UsageError(f"{path} is not {what}: {_undecodable(error, name or '', at)}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not {what}: {error}") from error


def read_text(path: Path, what: str) -> str:
    """A text file; `what` says what it should have been. UsageError if it is missing, unreadable or in an unknown encoding."""
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read as {what}: {error.strerror}") from error
    except (ValueError, MemoryError) as error:
        raise UsageError(f"{path} is not {what}: {error or 'it does not fit into memory'}") from error


def read_json(path: Path, what: str) -> Any:
    """The value of a JSON file; `what` says what it should have been. UsageError if it is missing or damaged."""
    text = read_text(path, what)
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"{path} is not {what}: {error}") from error


def head_of(data: bytes) -> str:
    """The beginning of a file as text, as far as it can be read; empty for what is no text."""
    name = encoding_of(data)
    return data.decode(name, "replace") if name else ""
