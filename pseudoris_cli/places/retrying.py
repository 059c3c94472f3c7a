"""Asking a server again that stalls, breaks off or answers with less than was asked for."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pseudoris_cli.errors import EnvironmentStop, PseudorisError

T = TypeVar("T")
ATTEMPTS = 7
FIRST_WAIT = 0.25
LONGEST_WAIT = 16.0
"""Seconds before the second attempt, doubled for each further one up to the longest: half a minute in all, without the answers."""
_NO_USE = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "TokenRetrievalError", "NoRegionError")
"""Errors, by name, that another attempt will not mend."""


class ShortAnswer(Exception):
    """A server sent fewer bytes than the file has there."""


def patiently(ask: Callable[[], T], what: str) -> T:
    """The answer of `ask`, tried up to ATTEMPTS times with growing pauses.

    What is not there (FileNotFoundError) or not permitted (PermissionError) is raised at once; OSError where every answer was
    too short; EnvironmentStop, which ends the run and keeps what was committed, where the server does not answer.
    """
    wait = FIRST_WAIT
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except (FileNotFoundError, PermissionError, IsADirectoryError, PseudorisError):
            raise
        except Exception as error:  # every file system of fsspec raises errors of its own libraries
            if attempt < ATTEMPTS and type(error).__name__ not in _NO_USE:
                time.sleep(wait * random.uniform(0.5, 1))
                wait = min(2 * wait, LONGEST_WAIT)
                continue
            if isinstance(error, ShortAnswer):
                raise OSError(errno.EIO, f"the server sent too few bytes, {attempt} times ({error})", what) from error
            raise EnvironmentStop(
                f"{what} cannot be read: {_said(error)} (tried {attempt} times); committed work is kept. Run the same command "
                "again when the server answers"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _said(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
