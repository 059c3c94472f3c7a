"""Reading a remote file ahead of who reads it: blocks are fetched in threads while earlier ones are used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Lock

BLOCK = 1 << 20
MOST_AHEAD = 16
"""Blocks fetched ahead of a reader that goes on in order: enough for 300 MB/s at 50 ms an answer."""
KEPT = 32
"""Blocks held: those ahead, and those that threads a little behind may still want."""


class ReadAhead:
    """A remote file of `size` bytes, of which `fetch(start, end)` gets a range.

    Reading in order doubles what is fetched ahead, up to MOST_AHEAD blocks; a jump starts again with nothing ahead, so that a
    shard that reads one part here and one there does not pay for what lies between.
    """

    def __init__(self, size: int, fetch: Callable[[int, int], bytes], pool: Executor) -> None:
        self.size = size
        self._fetch, self._pool = fetch, pool
        self._lock = Lock()
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._last = -2
        self._ahead = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes from `offset` on; fewer than `size` only at the end of the file. Raises what `fetch` raises."""
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        with self._lock:
            self._look_ahead(first, last)
            found = [(number, self._block(number)) for number in range(first, last + 1)]
            for number in range(last + 1, last + 1 + self._ahead):
                if number * BLOCK < self.size:
                    self._block(number)
            self._forget()
        pieces = []
        for number, future in found:
            try:
                pieces.append(future.result())
            except BaseException:
                with self._lock:  # whoever asks again gets another attempt
                    if self._blocks.get(number) is future:
                        del self._blocks[number]
                raise
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return data[offset - first * BLOCK : end - first * BLOCK]

    def close(self) -> None:
        """Forget all blocks."""
        with self._lock:
            for future in self._blocks.values():
                future.cancel()
            self._blocks.clear()

    def _look_ahead(self, first: int, last: int) -> None:
        """Note where the reader is; one a little behind the others (threads) changes nothing."""
        if first > self._last + 1 or first < self._last - self._ahead - 1:
            self._ahead = 0
        elif last > self._last:
            self._ahead = min(max(1, 2 * self._ahead), MOST_AHEAD)
        else:
            return
        self._last = last

    def _block(self, number: int) -> Future[bytes]:
        if number in self._blocks:
            self._blocks.move_to_end(number)
            return self._blocks[number]
        start = number * BLOCK
        future = self._pool.submit(self._fetch, start, min(start + BLOCK, self.size))
        self._blocks[number] = future
        return future

    def _forget(self) -> None:
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)  # not cancelled: another thread may wait for it
