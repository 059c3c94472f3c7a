"""Signals: the first asks to stop after the part in flight, or at once if that cannot end within 20 seconds.

The second, or the end of the 20 seconds, stops at once. What a part had done is lost then, and nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Protocol

from pseudoris_cli.errors import Interrupted

GRACE_SECONDS = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class InFlight(Protocol):
    """Work that is lost if it is broken off."""

    loss: str = ""
    """Why it is broken off, and what that costs, where it is not that it takes too long."""

    def describe(self) -> str:
        """What it is, and how far."""
        ...

    def waits(self, seconds: float) -> bool:
        """Whether it may end within so many seconds."""
        ...


class OnWorkers(InFlight):
    """Parts on other processes or machines, of which nothing is heard before they end."""

    def describe(self) -> str:
        """What it is."""
        return "the parts that the workers are at"

    def waits(self, seconds: float) -> bool:
        """Nobody can tell, so they are given the time."""
        return True


class PartClock(InFlight):
    """A part in flight. `pace`: seconds an image of the parts before, where there were any; its own images tell better."""

    def __init__(self, part: int, images: int, pace: float | None = None) -> None:
        self.part, self.images, self.done, self._pace = part, images, 0.0, pace
        self._started = time.monotonic()

    @property
    def pace(self) -> float | None:
        """Seconds an image."""
        return (time.monotonic() - self._started) / self.done if self.done else self._pace

    def describe(self) -> str:
        """The part, how many of its images are done, and how long the rest of it will take."""
        left = self.seconds_left()
        more = ", it has only begun" if left is None else f", about {max(left, 1):.0f} s more"
        return f"part {self.part} ({self.done:.0f} of its {self.images} images are done{more})"

    def seconds_left(self) -> float | None:
        """How long the rest of it will take; None if nothing tells yet, as little is lost then."""
        if self.pace is None:
            return None
        return max(self.pace * self.images - (time.monotonic() - self._started), 0.0)

    def waits(self, seconds: float) -> bool:
        """Whether the rest of it takes no longer."""
        left = self.seconds_left()
        return left is not None and left <= seconds


class AskedElsewhere(PartClock):
    """A part whose answers come from a server and are kept one by one: it can be left at any moment."""

    loss = "is asked of a server; what was answered is kept"

    def waits(self, seconds: float) -> bool:
        """There is nothing to wait for."""
        return False


class Stopper:
    """Whether somebody asked us to stop. `interrupted()` makes the error to raise where that is safe.

    `in_flight` is what the first signal lets end, if it can end in time.
    """

    def __init__(self) -> None:
        self.in_flight: InFlight | None = None
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
        name = signal.Signals(number).name
        waits = self._in_time()
        if waits is not None:
            signal.alarm(GRACE_SECONDS)
            _say(f"{name}: finishing {waits} (at most {GRACE_SECONDS} s); once more to stop at once")
            return
        if self.in_flight:
            why = self.in_flight.loss or f"cannot end within {GRACE_SECONDS} s; the next run does it again"
            _say(f"{name}: stopping at once, as {self.in_flight.describe()} {why}")
        self._stop_now()

    def _in_time(self) -> str | None:
        """What to wait for; None where nothing is in flight, or it would take too long."""
        if self._shields and not self.in_flight:
            return "what may not be broken off"
        if self.in_flight and self.in_flight.waits(GRACE_SECONDS):
            return self.in_flight.describe()
        return None

    def _on_alarm(self, number: int, frame: FrameType | None) -> None:
        self._stop_now()

    def _stop_now(self) -> None:
        self._overdue = True
        if not self._shields:
            raise self.interrupted()

    def interrupted(self) -> Interrupted:
        """The error that ends the command with exit code 130."""
        return Interrupted("interrupted; all committed parts are kept, the same command goes on from here")


def _say(text: str) -> None:
    """Write to stderr as it is: a signal may come in the middle of a print, which cannot be entered twice."""
    text = f"\n{text}\n" if os.isatty(2) else f"{text}\n"  # below the progress bar and the ^C in it
    with suppress(OSError):  # a log that cannot be written stops nothing
        os.write(2, text.encode())


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
    """Handle SIGINT, SIGTERM and SIGUSR1 while the block runs; outside of the main thread nobody can, and none is handled.

    Interrupted if a signal came before: compiled code that was calling back may have swallowed what its handler raised.
    """
    if _pending_signal.is_set():
        raise Interrupted("interrupted")
    stopper = Stopper()
    if threading.current_thread() is not threading.main_thread():
        yield stopper
        return
    before = {number: signal.signal(number, stopper._on_signal) for number in _SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, stopper._on_alarm)
    try:
        yield stopper
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)
