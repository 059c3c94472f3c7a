"""The command `pseudoris`: runs the Typer app and turns foreseeable errors into one message and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

from pseudoris_cli.errors import Interrupted, PseudorisError
from pseudoris_cli.execution.signals import restore_default_signals, stop_at_once
from pseudoris_cli.text import visible


def main() -> NoReturn:
    """Entry point. Exit codes are those of docs/concepts.md."""
    stop_at_once()
    try:
        _command()
    except Interrupted as error:
        _fail(str(error), error.exit_code)
    finally:
        restore_default_signals()
    sys.exit(0)


def _command() -> None:
    try:
        from pseudoris_cli.cli.app import app

        app(prog_name="pseudoris")
    except PseudorisError as error:
        _fail(str(error), error.exit_code)
    except PermissionError as error:
        _fail(f"{error.filename}: permission denied; committed work is kept. Check who may read and write there", 1)
    except MemoryError as error:
        _fail(f"there is not enough memory ({error}); committed work is kept. Smaller settings or batches need less", 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)


def _fail(message: str, code: int) -> NoReturn:
    restore_default_signals()
    first, _, rest = visible(message).partition("\n")
    sys.stdout.flush()
    print(f"error: {first}" + (f"\n{rest}" if rest else ""), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
