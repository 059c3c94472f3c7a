"""What kind of source a path is: each kind is asked whether the path looks like one of its own; only the head of a file is read."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType

from pseudoris_cli.errors import PseudorisError, UsageError
from pseudoris_cli.settings import plugins
from pseudoris_cli.sources.base import IMAGE_SUFFIXES

log = logging.getLogger("pseudoris")

USUAL_ORDER = 50
"""Of a kind that does not say when it wants to be asked."""


def detect(path: Path | str) -> str:
    """The kind of source: the first, in the order of their `DETECT_ORDER`, that detects the path. UsageError if none does.

    A path at which nothing lies is a pattern, a text is a URL; only some kinds read those.
    """
    if isinstance(path, str) or not path.exists():
        return _detect_address(str(path))
    try:
        for name, module in _kinds():
            if module.detects(path):
                return name
    except OSError as error:
        what = "listed" if path.is_dir() else "read"
        raise UsageError(f"{path} cannot be {what}: {error.strerror}") from error
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise UsageError(f"{path} is a single image; --images takes its folder or a list file")
    theirs = [f", {name}" for name, found in plugins.known(plugins.SOURCES).items() if found.distribution]
    raise UsageError(
        f"{path} is neither a folder, a list of images, a COCO or ETRIS JSON, an LMDB, a tar nor a Parquet file"
        f"{''.join(theirs)}; --source-kind says what it is"
    )


def _detect_address(address: str) -> str:
    for name, module in _kinds():
        if hasattr(module, "detects_address") and module.detects_address(address):
            return name
    raise UsageError(
        f"{address} stands for no tar, Parquet file or image; patterns and URLs are read for those. --source-kind says what it is"
    )


def _kinds() -> list[tuple[str, ModuleType]]:
    """Every kind that can detect, in order. One of another package that cannot be imported is left out, with a warning."""
    found = []
    for name, plug_in in plugins.known(plugins.SOURCES).items():
        try:
            module = plugins.load(plugins.SOURCES, name)
        except PseudorisError as error:
            if not plug_in.distribution:
                raise
            log.warning("%s", error)
            continue
        if hasattr(module, "detects"):
            found.append((getattr(module, "DETECT_ORDER", USUAL_ORDER), name, module))
    return [(name, module) for _, name, module in sorted(found, key=lambda row: row[:2])]


def authors_source(folder: Path) -> Path | None:
    """What the release's scripts read in a directory laid out like its authors': the RefCOCO+ LMDB, else its images."""
    for name in ("datasets/lmdb/refcoco+/train.lmdb", "datasets/images/train2014"):
        if (folder / name).exists():
            return folder / name
    return None
