"""How far a batch is, for whoever watches: code that takes long tells it, and need not know whether anybody listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_listeners: list[Callable[[float], None]] = []
_spans: list[tuple[float, float]] = []


@contextmanager
def watched(listener: Callable[[float], None]) -> Iterator[None]:
    """Let `listener` hear what fraction of the block is done, 0..1; it may hear the same again, or less after a second attempt."""
    before = _spans[:]
    _listeners.append(listener)
    _spans.clear()
    try:
        yield
    finally:
        _listeners.pop()
        _spans[:] = before


@contextmanager
def span(low: float, high: float) -> Iterator[None]:
    """Within the block 0..1 stand for low..high of what surrounds it; at its end that much is done."""
    _spans.append((low, high - low))
    try:
        yield
        tell(1.0)
    finally:
        _spans.pop()


def tell(fraction: float) -> None:
    """So much of the innermost span is done."""
    if not _listeners:
        return
    for low, width in reversed(_spans):
        fraction = low + fraction * width
    _listeners[-1](fraction)
