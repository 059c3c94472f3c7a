"""Check where an export may be written, so that it never replaces the images, the work directory, or foreign files."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.foreign_names import is_text
from pseudoris_cli.errors import UsageError
from pseudoris_cli.storage import files, trial

MARKER = "pseudoris-export.json"
STAGING, REPLACING, REPLACED = WITHIN = (".pseudoris-staging", ".pseudoris-replacing", ".pseudoris-replaced")
"""Folders of an export that is published inside its folder: the new one; the old while it is moved aside; all of the old."""
_LEFTOVERS = frozenset(
    {
        "lost+found", ".ds_store", ".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".apdisk", "__macosx",
        "thumbs.db", "ehthumbs.db", "desktop.ini", "system volume information", "$recycle.bin", "recycler",
        ".snapshot", ".snapshots", ".zfs", "@eadir", "#recycle", "#snapshot", "@recycle", ".directory", ".stfolder", ".sync",
    }
)  # fmt: skip
"""In lower case."""


@dataclass(frozen=True, slots=True)
class ProtectedFolder:
    """A folder that no export replaces or writes into; `description` names it in messages (`the work directory`)."""

    description: str
    path: Path


def check(out: Path, overwrite: bool, protected: Sequence[ProtectedFolder] = ()) -> None:
    """Raise UsageError (exit 2) if an export may not be written to `out`. Call it before the work begins.

    `overwrite` allows to replace a folder that no export made, but none of the `protected` ones.
    """
    if out.name in ("", ".."):
        raise UsageError(f"--out {out} has no name of its own; name a new folder, e.g. --out {out / 'pseudo'}")
    if not is_text(str(out)):
        raise UsageError(
            f"--out {out} is not valid UTF-8, and some formats cannot be written there; choose another folder"
        )
    target = out.resolve()
    for folder in protected:
        if folder.path.resolve().is_relative_to(target):
            raise UsageError(f"--out {out} would replace {folder.description}, {folder.path}; choose another folder")
        if target.is_relative_to(folder.path.resolve()):
            raise UsageError(f"--out {out} lies within {folder.description}, {folder.path}; choose another folder")
    for what, place in (("the current folder", Path.cwd()), ("your home", Path(os.environ.get("HOME") or "/"))):
        if place.resolve().is_relative_to(target):
            raise UsageError(f"--out {out} would replace {what}, {place}; choose another folder")
    if out.exists() and export_identity(out) is None and not overwrite and (not out.is_dir() or own_entries(out)):
        raise UsageError(
            f"{out} exists and was not made by pseudoris; choose another --out, or replace it with --overwrite"
        )


def check_abilities(out: Path, links: bool = False) -> None:
    """Raise UsageError (exit 2) if the file system of `out` cannot hold an export; with `links`, one with links to images.

    EnvironmentStop (exit 1) where nothing can be written there: a full or read-only disk, missing permissions.
    """
    with files.os_errors_as_stop(out.parent):
        lacking = trial.lacks(out if is_within(out) else out.parent, "rename", *(["link"] if links else []))
    for ability in lacking:
        if ability.name == "link":
            raise UsageError(no_links(out, ability.error))
        raise UsageError(
            f"--out {out}: its file system cannot rename ({ability.reason}); choose a folder on another one"
        )


def no_links(out: Path, error: OSError | None) -> str:
    """The message about a file system without symbolic links."""
    why = error.strerror if error else ""
    return (
        f"--images link: the file system of {out} makes no symbolic links ({why}); use --images copy, or another --out"
    )


def is_leftover(name: str) -> bool:
    """Whether a file or folder is one that systems and tools leave everywhere, and none of the user's."""
    low = name.lower()
    return low in _LEFTOVERS or low.startswith((".nfs", "._", ".trash-", ".fuse_hidden", ".~lock"))


def own_entries(folder: Path) -> list[Path]:
    """What is in a folder beside the leftovers of systems and our own unfinished publishing, by name."""
    return sorted(path for path in folder.iterdir() if not is_leftover(path.name) and path.name not in WITHIN)


def is_within(out: Path) -> bool:
    """Whether an export must be published inside `out` because the folder itself cannot be replaced.

    It is a mount point, its parent cannot be written to, or it holds what systems put there (`lost+found`).
    """
    if out.is_symlink() or not out.is_dir():
        return False
    leftovers = any(is_leftover(path.name) for path in out.iterdir())
    return leftovers or os.path.ismount(out) or not os.access(out.absolute().parent, os.W_OK)


def export_identity(out: Path) -> dict[str, Any] | None:
    """The identity of the export in `out` (`ExportJob.identity`); None where no export of ours is there."""
    try:
        made: dict[str, Any] | None = json.loads((out / MARKER).read_text(encoding="utf-8")).get("export")
    except (OSError, ValueError, AttributeError):
        return None
    return made
