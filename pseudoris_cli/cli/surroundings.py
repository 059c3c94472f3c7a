"""What a process may be started with: closed, full or narrow streams, no home, no line in the password file.

`prepare()` mends what can be mended before anything else is imported. Results go to stdout, and if that cannot be written the
command says so and fails; messages and progress go to stderr, and a log that cannot be written stops no work.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

from pseudoris_cli.errors import Interrupted


def prepare() -> None:
    """Make streams, encoding and home such that neither we nor a library falls over them."""
    _open_closed_streams()
    _use_utf8()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout = _Results(sys.stdout)
    if isinstance(sys.stderr, TextIOWrapper):
        sys.stderr = _Messages(sys.stderr)
    _find_home()
    sys.unraisablehook = _without_interruptions


def _open_closed_streams() -> None:
    """Give closed standard streams to the null device: the next file that is opened would take their number, and prints with it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            stream: TextIO = open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _use_utf8() -> None:
    """Begin anew in Python's UTF-8 mode where the locale has another encoding: file names would not survive it."""
    if sys.getfilesystemencoding().lower() != "utf-8" and "PYTHONUTF8" not in os.environ and sys.orig_argv:
        os.environ["PYTHONUTF8"] = "1"
        with suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _find_home() -> None:
    """Name a home and a user where there is none: torch asks for the user's name, other libraries write below the home."""
    user: Any = None
    with suppress(KeyError):
        user = pwd.getpwuid(os.getuid())
    if user is None:
        for name in ("USER", "LOGNAME"):
            os.environ.setdefault(name, f"uid{os.getuid()}")
    if not os.environ.get("HOME") and user is None:
        os.environ["HOME"] = str(Path(tempfile.gettempdir()) / f"pseudoris-{os.getuid()}")


def _without_interruptions(unraisable: Any) -> None:
    """A signal that came while Python was tidying up is no fault to be told of; the flag that it set is looked at."""
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)


class _Stream(TextIOWrapper):
    """A standard stream in its own encoding; a name that cannot be written in it is no reason to fail."""

    def __init__(self, stream: TextIOWrapper) -> None:
        encoding, by_line = stream.encoding, stream.line_buffering
        super().__init__(stream.detach(), encoding, "backslashreplace", line_buffering=by_line)
        self.failure: OSError | None = None


class _Results(_Stream):
    """stdout, which keeps why it could not be written."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


class _Messages(_Stream):
    """stderr, whose loss stops nothing."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def stdout_failure() -> OSError | None:
    """Why what was printed cannot be written, if so; the stream is then given up, so that Python's end is silent about it."""
    try:
        sys.stdout.flush()
        failure = getattr(sys.stdout, "failure", None)
    except OSError as error:
        failure = error
    if failure is not None:
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
    return failure
