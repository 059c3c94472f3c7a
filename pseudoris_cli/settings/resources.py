"""Files that travel with the code: `configs/` and `third_party/weights.yaml`.

In a wheel they lie inside the package; in a checkout they lie beside it, at the top of the repository.
"""

from __future__ import annotations

from pathlib import Path

from pseudoris_cli.errors import UsageError

PACKAGE = Path(__file__).resolve().parent.parent


def resource(name: str) -> Path:
    """The path of a shipped file or folder, e.g. `configs/paper.yaml`."""
    for root in (PACKAGE, PACKAGE.parent):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"{name} is missing from this installation of pseudoris")


def expanded(path: str | Path, what: str) -> Path:
    """A path with `~` replaced by the home. UsageError, naming `what` asked for it, where there is no such home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{what} {str(path)!r}: {error}; write the entire path") from error
