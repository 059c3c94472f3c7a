"""Signals: the first asks to stop after the part in flight, the second, or 20 seconds, stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pseudoris_cli.errors import Interrupted

GRACE_SECONDS = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopper:
    """Whether somebody asked us to stop. `interrupted()` makes the error to raise where that is safe."""

    def __init__(self) -> None:
        self.requested = False
        self._overdue = False
        self._shields = 0

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Let no signal break off the block: a part is committed complete or not at all, and leaves no file behind."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._overdue:
            raise self.interrupted()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self._stop_now()
            return
        self.requested = True
        signal.alarm(GRACE_SECONDS)
        name = signal.Signals(number).name
        message = f"{name}: finishing the part in flight (at most {GRACE_SECONDS} s); once more to stop at once\n"
        if os.isatty(2):
            message = f"\n{message}"  # below the progress bar and the ^C in it
        os.write(2, message.encode())  # a signal may come in the middle of a print, which cannot be entered twice

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._stop_now()

    def _stop_now(self) -> None:
        self._overdue = True
        if not self._shields:
            raise self.interrupted()

    def interrupted(self) -> Interrupted:
        """The error that ends the command with exit code 130."""
        return Interrupted("interrupted; all committed parts are kept, the same command goes on from here")


_pending_signal = threading.Event()
"""Set by a signal that came outside of `graceful_stop`."""


def stop_at_once() -> None:
    """From now on a signal raises Interrupted wherever the program is."""
    _pending_signal.clear()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _pending_signal.set()
    raise Interrupted("interrupted")


def restore_default_signals() -> None:
    """From now on signals do what they do by themselves: while Python shuts down nobody would catch an Interrupted."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def graceful_stop() -> Iterator[Stopper]:
    """Handle SIGINT, SIGTERM and SIGUSR1 while the block runs.

    Interrupted if a signal came before: compiled code that was calling back may have swallowed what its handler raised.
    """
    if _pending_signal.is_set():
        raise Interrupted("interrupted")
    stopper = Stopper()
    before = {number: signal.signal(number, stopper._on_signal) for number in _SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stopper._on_alarm)
    try:
        yield stopper
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
