"""Reading ahead: the bytes that are there, blocks fetched once, more of them the longer a reader goes on in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudoris_cli.places import ahead
from pseudoris_cli.places.ahead import ReadAhead

DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "BLOCK", 100)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


class Server:
    def __init__(self) -> None:
        self.asked: list[int] = []

    def fetch(self, start: int, end: int) -> bytes:
        self.asked.append(start // 100)
        return DATA[start:end]


@given(st.lists(st.tuples(st.integers(0, len(DATA) + 200), st.integers(0, 700)), max_size=30))
def test_any_reads_give_the_bytes_that_are_there(reads: list[tuple[int, int]]) -> None:
    with ThreadPoolExecutor(3) as pool:
        file = ReadAhead(len(DATA), Server().fetch, pool)
        for offset, size in reads:
            assert file.read_at(offset, size) == DATA[offset : offset + size]


def test_a_reader_in_order_has_each_block_fetched_once_and_more_and_more_ahead(pool: ThreadPoolExecutor) -> None:
    server = Server()
    file = ReadAhead(len(DATA), server.fetch, pool)
    ahead_of = []
    for offset in range(0, len(DATA), 30):
        file.read_at(offset, 30)
        ahead_of.append(len(file._blocks))
    assert sorted(server.asked) == list(range(103))
    assert ahead_of[0] == 1
    assert max(ahead_of) <= ahead.KEPT
    assert file._ahead == ahead.MOST_AHEAD


def test_a_jump_costs_nothing_beside_what_is_read(pool: ThreadPoolExecutor) -> None:
    server = Server()
    file = ReadAhead(len(DATA), server.fetch, pool)
    for block in (7, 50, 23, 90):
        file.read_at(block * 100 + 5, 20)
    assert sorted(server.asked) == [7, 23, 50, 90]


def test_a_failure_is_raised_and_the_next_reader_asks_again(pool: ThreadPoolExecutor) -> None:
    server = Server()
    broken = [True]

    def fetch(start: int, end: int) -> bytes:
        if broken:
            broken.pop()
            raise OSError("no")
        return server.fetch(start, end)

    file = ReadAhead(len(DATA), fetch, pool)
    with pytest.raises(OSError, match="no"):
        file.read_at(0, 10)
    assert file.read_at(0, 10) == DATA[:10]


def test_what_is_forgotten_is_not_taken_from_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One read of more blocks than are kept, with a pool that is slow to begin them."""
    monkeypatch.setattr(ahead, "KEPT", 2)
    gate = threading.Event()
    with ThreadPoolExecutor(1) as slow:
        slow.submit(gate.wait)
        file = ReadAhead(len(DATA), Server().fetch, slow)
        timer = threading.Timer(0.05, gate.set)
        timer.start()
        assert file.read_at(0, 2000) == DATA[:2000]
