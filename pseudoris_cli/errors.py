"""Foreseeable errors, each with its exit code (docs/concepts.md); the command line prints the message, not a traceback."""

from __future__ import annotations


class PseudorisError(Exception):
    """Base of the errors that a user can act on; the message says what is wrong and what to do next."""

    exit_code = 1


class EnvironmentStop(PseudorisError):
    """The environment (disk, device, lock) stopped the command; committed work is kept."""

    exit_code = 1


class UsageError(PseudorisError):
    """A wrong flag, setting or input."""

    exit_code = 2


class MissingDependency(PseudorisError):
    """A checkpoint or an optional package is missing."""

    exit_code = 3


class SomeImagesFailed(PseudorisError):
    """The command finished, but some images failed."""

    exit_code = 4


class Interrupted(BaseException):
    """Stopped by a signal; committed work is kept. Like KeyboardInterrupt not an Exception, so that no handler swallows it."""

    exit_code = 130
