"""The command `pseudoris`: runs the Typer app and turns foreseeable errors into one message and an exit code."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from pseudoris_cli.errors import Interrupted, PseudorisError
from pseudoris_cli.names import visible

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def main() -> NoReturn:
    """Entry point. Exit codes are those of DESIGN.md §1."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    try:
        from pseudoris_cli.cli.app import app

        app(prog_name="pseudoris")
    except (PseudorisError, Interrupted) as error:
        _fail(str(error), error.exit_code)
    except PermissionError as error:
        _fail(f"{error.filename}: permission denied; committed work is kept. Check who may read and write there", 1)
    except MemoryError as error:
        _fail(f"there is not enough memory ({error}); committed work is kept. Smaller settings or batches need less", 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    finally:  # nobody is left to catch an Interrupted while Python shuts down
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    sys.exit(0)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted("interrupted")


def _fail(message: str, code: int) -> NoReturn:
    first, _, rest = visible(message).partition("\n")
    sys.stdout.flush()
    print(f"error: {first}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
