"""The members of a tar, found by its headers only: untrusted input. POSIX (ustar, pax) and GNU tars.

Unlike `tarfile`, which takes a damaged header for the end of the archive, this says what is damaged and goes on with the next
good header.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ReadAt: TypeAlias = Callable[[int, int], bytes]
Kind: TypeAlias = Literal["file", "hard link", "link", "device", "sparse", "folder", "other"]
BLOCK = 512
HEAD = 64
"""Bytes of a file that come with its header."""
MOST_NAME = 1 << 20
"""Bytes of a long name or of extended headers at most."""
MOST_SIZE = 1 << 50
_SEARCH = 1 << 20
_KINDS: dict[bytes, Kind] = {
    b"0": "file", b"\0": "file", b"7": "file", b"1": "hard link", b"2": "link", b"3": "device", b"4": "device", b"5": "folder",
    b"6": "device", b"S": "sparse",
}  # fmt: skip
_NO_DATA = ("hard link", "link", "device")
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"))


@dataclass(frozen=True, slots=True)
class Member:
    """A member: its name as raw bytes, and where its bytes lie. `head` has the first of them, `target` is that of a link."""

    name: bytes
    kind: Kind
    offset: int
    size: int
    head: bytes = b""
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class Damage:
    """What is wrong with the tar, at a byte offset; members may be missing there."""

    offset: int
    reason: str


@dataclass(slots=True)
class _Extended:
    """What headers before a member's own say of it."""

    name: bytes | None = None
    target: bytes | None = None
    records: dict[bytes, bytes] = field(default_factory=dict)


def compression_of(head: bytes) -> str | None:
    """What a file that begins so is compressed with."""
    return next((name for magic, name in _COMPRESSED if head.startswith(magic)), None)


def scan(read_at: ReadAt, size: int) -> Iterator[Member | Damage]:
    """Every member of a tar of `size` bytes, in order, and every damage. `read_at` may raise; nothing else does."""
    at, extended, common = 0, _Extended(), {}  # type: int, _Extended, dict[bytes, bytes]
    while True:
        block = read_at(at, BLOCK + HEAD)
        if len(block) < BLOCK:
            yield Damage(at, "ends within a header" if block else "has no end mark: it may have been cut off")
            return
        if block[0] == 0 and not block[:BLOCK].strip(b"\0"):
            if read_at(at, _SEARCH).strip(b"\0"):
                yield Damage(at, "goes on after its end mark")
            return
        header = _parse(block[:BLOCK])
        if header is None:
            yield Damage(at, "has a header with a wrong checksum")
            following = _next_header(read_at, at + BLOCK, size)
            if following is None:
                return
            at, extended = following, _Extended()
            continue
        kind, length, name, target = header
        data = at + BLOCK
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            text = read_at(data, length) if length <= MOST_NAME else b""
            if len(text) < length:
                yield Damage(at, "has a broken name")
                extended = _Extended()
            elif kind == b"g":
                common = common | _records(text)
            else:
                _extend(extended, kind, text)
            at = data + _padded(length) if length <= MOST_NAME else data
            continue
        member = _member((_KINDS.get(kind, "other"), length, name, target), extended, common, data)
        extended = _Extended()
        if member is None:
            yield Damage(at, "has a broken header")
            at = data
            continue
        if kind == b"S":
            data = _after_sparse_map(read_at, block, data)
        at = data + (0 if member.kind in _NO_DATA else _padded(member.size))
        yield Member(member.name, member.kind, data, member.size, block[BLOCK:][: member.size], member.target)
        if at > size and data + member.size > size:
            yield Damage(data, "ends within a member")
            return


def _parse(block: bytes) -> tuple[bytes, int, bytes, bytes] | None:
    """Type, size, name and link target; None for what is no header."""
    checksum, length = _number(block[148:156]), _number(block[124:136])
    if checksum is None or length is None or not 0 <= length <= MOST_SIZE:
        return None
    unsigned = 256 + sum(block[:148]) + sum(block[156:])
    if checksum != unsigned and checksum != unsigned - 256 * _high_bytes(block):  # old tars summed signed bytes
        return None
    name, prefix = _text(block[:100]), _text(block[345:500])
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    kind = block[156:157]
    return b"5" if kind == b"\0" and name.endswith(b"/") else kind, length, name, _text(block[157:257])


def _high_bytes(block: bytes) -> int:
    return sum(byte > 127 for byte in block[:148] + block[156:])


def _member(
    header: tuple[Kind, int, bytes, bytes], extended: _Extended, common: dict[bytes, bytes], data: int
) -> Member | None:
    kind, length, name, target = header
    records = common | extended.records
    if b"size" in records:
        text = records[b"size"]
        if not (text.isdigit() and len(text) < 16 and int(text) <= MOST_SIZE):
            return None
        length = int(text)
    if any(key.startswith(b"GNU.sparse") for key in records):
        kind = "sparse"
        name = records.get(b"GNU.sparse.name", name)
    name = records.get(b"path", extended.name or name)
    return Member(name, kind, data, length, target=records.get(b"linkpath", extended.target or target))


def _extend(extended: _Extended, kind: bytes, text: bytes) -> None:
    if kind == b"L":
        extended.name = _text(text)
    elif kind == b"K":
        extended.target = _text(text)
    else:
        extended.records.update(_records(text))


def _records(text: bytes) -> dict[bytes, bytes]:
    """The `length key=value` lines of a pax header; what follows a broken one is left."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(text):
        digits, space, _ = text[at : at + 20].partition(b" ")
        if not (space and digits.isdigit()):
            break
        line = text[at : at + int(digits)]
        key, equals, value = line[len(digits) + 1 :].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            break
        found[key] = value[:-1]
        at += int(digits)
    return found


def _after_sparse_map(read_at: ReadAt, block: bytes, data: int) -> int:
    """Where the data of an old GNU sparse member begins: more blocks of its map may follow the header."""
    more = block[482]
    while more:
        following = read_at(data, BLOCK)
        if len(following) < BLOCK:
            break
        data, more = data + BLOCK, following[504]
    return data


def _next_header(read_at: ReadAt, at: int, size: int) -> int | None:
    """The offset of the next block that is a header; None where there is none."""
    while at < size:
        chunk = read_at(at, _SEARCH)
        for start in range(0, len(chunk) - BLOCK + 1, BLOCK):
            if chunk[start + 257 : start + 262] == b"ustar" and _parse(chunk[start : start + BLOCK]):
                return at + start
        if len(chunk) < _SEARCH:
            return None
        at += _SEARCH
    return None


def _number(text: bytes) -> int | None:
    if text[0] & 0x80:  # GNU's binary form of large numbers
        return int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
    digits = text.strip(b" \0")
    if digits.translate(None, b"01234567"):
        return None
    return int(digits or b"0", 8)


def _text(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
