"""Signals: the first asks to stop after the part in flight, the second, or 20 seconds, stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pseudoris_cli.errors import Interrupted

GRACE_SECONDS = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopper:
    """Whether somebody asked us to stop. `interrupted()` makes the error to raise at a safe place."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.requested = False
        self._announce = announce

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested:
            raise self.interrupted()
        self.requested = True
        signal.alarm(GRACE_SECONDS)
        self._announce(f"{name}: finishing the part in flight (at most {GRACE_SECONDS} s); once more to stop at once")

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        raise self.interrupted()

    def interrupted(self) -> Interrupted:
        """The error that ends the command with exit code 130."""
        return Interrupted("interrupted; all committed parts are kept, the same command goes on from here")


@contextmanager
def graceful_stop(announce: Callable[[str], None]) -> Iterator[Stopper]:
    """Handle SIGINT, SIGTERM and SIGUSR1 while the block runs."""
    stopper = Stopper(announce)
    before = {number: signal.signal(number, stopper._on_signal) for number in _SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stopper._on_alarm)
    try:
        yield stopper
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
