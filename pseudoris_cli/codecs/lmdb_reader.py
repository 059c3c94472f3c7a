"""A reader of LMDB files that checks every offset. The LMDB library trusts the file: a damaged or hostile one makes it read
outside its mapping, which ends the process.

Layout (lmdb.h and mdb.c of LMDB 0.9; data format 1, little-endian, 64 bits): pages of equal size; pages 0 and 1 are meta
pages, of which the one with the larger transaction number is valid; a B+ tree of branch and leaf pages; large values on
overflow pages.
"""

from __future__ import annotations

import mmap
import struct
from functools import cached_property
from pathlib import Path

_MAGIC = 0xBEEFC0DE
_PAGE_HEADER = 16
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG_VALUE = 1
_DEEPEST = 32
_META = struct.Struct("<IIQQ")
_DATABASE = struct.Struct("<IHHQQQQQ")
_NODE = struct.Struct("<HHHH")


class DamagedLmdb(ValueError):
    """The file is not an LMDB file, or damaged; the message says what is wrong."""


class LmdbFile:
    """An LMDB file, memory-mapped for reading. Values are views into the mapping, so only pages that are used are read."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be opened, DamagedLmdb if it is not an LMDB file."""
        with path.open("rb") as file:
            try:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise DamagedLmdb("it is empty") from error
        self._data = memoryview(self._map)
        self._page_size, self._root, last_page = self._newest_meta
        needed = (last_page + 1) * self._page_size
        if len(self._data) < needed:
            raise DamagedLmdb(f"it is cut short: {len(self._data)} bytes of {needed}; copy it again")

    def get(self, key: bytes) -> memoryview | None:
        """The value of a key of the main database, None if it is absent. Raises DamagedLmdb where the tree is damaged."""
        number = self._root
        if number == (1 << 64) - 1:
            return None
        for _ in range(_DEEPEST):
            page, flags = self._page(number)
            nodes = self._nodes(page)
            if flags == _LEAF:
                index = self._search(page, nodes, key, first=0)
                found = index >= 0 and self._key(page, nodes[index]) == key
                return self._value(page, nodes[index]) if found else None
            if flags != _BRANCH or not nodes:
                raise DamagedLmdb(f"page {number} is of the wrong kind")
            low, high, top, _ = self._node(page, nodes[self._search(page, nodes, key, first=1)])
            number = low | high << 16 | top << 32
        raise DamagedLmdb("its tree is deeper than any can be")

    @cached_property
    def _newest_meta(self) -> tuple[int, int, int]:
        """Page size, root page and last page of the last transaction."""
        size = self._meta(_PAGE_HEADER)[0]
        found = []
        for start in (_PAGE_HEADER, size + _PAGE_HEADER):
            try:
                found.append(self._meta(start))
            except DamagedLmdb:
                continue  # a crash may have torn one of the two
        if not found:
            raise DamagedLmdb("both of its meta pages are damaged")
        page_size, root, last_page, _ = max(found, key=lambda meta: meta[3])
        return page_size, root, last_page

    def _meta(self, start: int) -> tuple[int, int, int, int]:
        header = self._data[start : start + _META.size + 2 * _DATABASE.size + 16]
        if len(header) < _META.size + 2 * _DATABASE.size + 16:
            raise DamagedLmdb("it is cut short")
        magic, version, _, _ = _META.unpack_from(header)
        if magic != _MAGIC or version != 1:
            raise DamagedLmdb("it has no LMDB header (or one of another version)")
        page_size = _DATABASE.unpack_from(header, _META.size)[0]
        flags, root = (_DATABASE.unpack_from(header, _META.size + _DATABASE.size)[n] for n in (1, 7))
        last_page, transaction = struct.unpack_from("<QQ", header, _META.size + 2 * _DATABASE.size)
        if page_size not in (1 << n for n in range(9, 17)):
            raise DamagedLmdb(f"its pages have {page_size} bytes")
        if flags:
            raise DamagedLmdb("its keys have another order than ETRIS' have")
        return page_size, root, last_page, transaction

    def _page(self, number: int) -> tuple[memoryview, int]:
        """A page and its flags."""
        page = self._data[number * self._page_size : (number + 1) * self._page_size]
        if number < 2 or len(page) < self._page_size:
            raise DamagedLmdb(f"there is no page {number}")
        named, _, flags = struct.unpack_from("<QHH", page)
        if named != number:
            raise DamagedLmdb(f"page {number} calls itself {named}")
        return page, flags

    def _nodes(self, page: memoryview) -> tuple[int, ...]:
        """The offsets of the nodes of a page."""
        count = (struct.unpack_from("<H", page, 12)[0] - _PAGE_HEADER) // 2
        if not 0 <= count <= (len(page) - _PAGE_HEADER) // 2:
            raise DamagedLmdb("a page claims more nodes than fit into it")
        return struct.unpack_from(f"<{count}H", page, _PAGE_HEADER)

    def _node(self, page: memoryview, start: int) -> tuple[int, int, int, int]:
        if start + _NODE.size > len(page):
            raise DamagedLmdb("a node lies outside its page")
        return _NODE.unpack_from(page, start)

    def _key(self, page: memoryview, start: int) -> bytes:
        size = self._node(page, start)[3]
        return bytes(self._inside(page, start + _NODE.size, size))

    def _search(self, page: memoryview, nodes: tuple[int, ...], key: bytes, first: int) -> int:
        """Index of the last node with a key <= `key`, or `first` - 1; a branch is searched from 1, as its first key is implicit."""
        low, high = first, len(nodes)
        while low < high:
            middle = (low + high) // 2
            if self._key(page, nodes[middle]) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def _value(self, page: memoryview, start: int) -> memoryview:
        low, high, flags, key_size = self._node(page, start)
        size, offset = low | high << 16, start + _NODE.size + key_size
        if not flags:
            return self._inside(page, offset, size)
        if flags != _BIG_VALUE:
            raise DamagedLmdb("it has several values for a key, or databases in a database")
        (number,) = struct.unpack("<Q", self._inside(page, offset, 8))
        if self._page(number)[1] != _OVERFLOW:
            raise DamagedLmdb(f"page {number} is of the wrong kind")
        return self._inside(self._data, number * self._page_size + _PAGE_HEADER, size)

    @staticmethod
    def _inside(data: memoryview, start: int, size: int) -> memoryview:
        found = data[start : start + size]
        if len(found) < size:
            raise DamagedLmdb("a value reaches beyond its page or the file")
        return found
