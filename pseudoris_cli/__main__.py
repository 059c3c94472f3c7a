"""The command `pseudoris`: runs the Typer app and turns foreseeable errors into one message and an exit code."""

from __future__ import annotations

import signal

signal.signal(
    signal.SIGINT, signal.SIG_DFL
)  # until the handlers are there, Ctrl-C ends the process without a traceback

import errno  # noqa: E402
import sys  # noqa: E402
from typing import NoReturn  # noqa: E402

from pseudoris_cli.cli.surroundings import prepare, stdout_failure  # noqa: E402
from pseudoris_cli.errors import Interrupted, PseudorisError  # noqa: E402
from pseudoris_cli.execution.signals import restore_default_signals, stop_at_once  # noqa: E402
from pseudoris_cli.text import visible  # noqa: E402


def main() -> NoReturn:
    """Entry point. Exit codes are those of docs/concepts.md."""
    prepare()  # before the handlers: a signal in the middle of it would leave half a stream to tell of it
    try:
        try:
            stop_at_once()
            _command()
        finally:
            restore_default_signals()
    except Interrupted as error:  # also of a signal that came between two lines of this function
        _fail(str(error), error.exit_code)
    sys.exit(0)


def _command() -> None:
    try:
        from pseudoris_cli.cli.app import app

        app(prog_name="pseudoris")
    except SystemExit as end:
        _check_stdout(end.code == 0 or end.code is None)
        raise
    except PseudorisError as error:
        _fail(str(error), error.exit_code)
    except PermissionError as error:
        _fail(f"{error.filename}: permission denied; committed work is kept. Check who may read and write there", 1)
    except MemoryError as error:
        _fail(f"there is not enough memory ({error}); committed work is kept. Smaller settings or batches need less", 1)
    except OSError:
        _check_stdout(True)  # if it was stdout that failed, that is said, and this is the end
        raise


def _check_stdout(was_well: bool) -> None:
    """Exit with 1 where the result of a command that went well cannot be written; a reader that went away needs no message."""
    failure = stdout_failure()
    if failure is None or not was_well:
        return
    if failure.errno != errno.EPIPE:
        _fail(f"the result cannot be written to stdout: {failure.strerror}; committed work is kept", 1)
    restore_default_signals()
    sys.exit(1)


def _fail(message: str, code: int) -> NoReturn:
    restore_default_signals()
    first, _, rest = visible(message).partition("\n")
    stdout_failure()
    print(f"error: {first}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
