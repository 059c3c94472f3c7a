"""Tricks that one image plays on the worker of the trivial stages; picklable, so that they follow into other processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KillOn:
    """The image kills the process by a signal, as long as `while_there` exists (if that is given)."""

    victim: str
    number: int = signal.SIGKILL
    while_there: Path | None = None

    def __call__(self, key: str, together: int) -> None:
        if key == self.victim and (self.while_there is None or self.while_there.exists()):
            os.kill(os.getpid(), self.number)


@dataclass(frozen=True)
class FailOn:
    """The image fails."""

    victim: str

    def __call__(self, key: str, together: int) -> None:
        if key == self.victim:
            raise ZeroDivisionError
