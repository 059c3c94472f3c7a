"""Write the report of a work directory to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.evaluation.metrics import Evaluation
from pseudoris_cli.records import ImageRef
from pseudoris_cli.report import images, page
from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.gather import gather
from pseudoris_cli.sources.registry import source_of
from pseudoris_cli.storage import files
from pseudoris_cli.storage.workspace import Artifact, Workspace

Progress = Callable[[str, int, int], None]
"""(what is being done, how many are done, how many there are)"""


def write_report(
    workspace: Workspace,
    out: Path,
    choice: ImageChoice,
    start: Artifact | None = None,
    progress: Progress = lambda what, done, total: None,
    evaluation: Evaluation | None = None,
) -> Path:
    """Write the report of a work directory to `out`, atomically, and return its path.

    `start` is the version to report on, together with the versions it was made from and those made from it; by default
    the version that was worked on last. `evaluation` against a truth adds its curves.

    Raises UsageError (exit 2) if there is nothing to report on, EnvironmentStop (exit 1) if `out` cannot be written.
    """
    description = workspace.source()
    if description is None:
        raise UsageError(
            f"{workspace.root} is no work directory yet. Run `pseudoris masks --images DIR` first, or name one with --work"
        )
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name a file in it, e.g. --out {out / 'report.html'}")
    _check_ours(out)
    report = gather(workspace, choice, start, lambda done, total: progress("reading parts", done, total))
    source = source_of(workspace)
    encoded, overlays = [], []
    for number, image in enumerate(report.images):
        progress("images", number, len(report.images))
        ref = ImageRef(image.key, 0, image.key)
        encoded.append(images.embed_image(source, ref, report.max_pixels, image.sha256))
        overlays.append([images.overlay(mask.rle) for mask in image.masks])
    html = page.build_page(report, encoded, overlays, evaluation)
    with files.os_errors_as_stop(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(out, html.encode("utf-8", "backslashreplace"))  # paths may hold bytes that are not UTF-8
    return out


def _check_ours(out: Path) -> None:
    """Raise UsageError (exit 2) where `out` must not be replaced: a device, or a file that is no report of ours."""
    if out.is_symlink() and not out.exists():
        return
    if out.exists() and not out.is_file():
        raise UsageError(
            f"--out {out} is no file that could be replaced (a device or a pipe); name a file, e.g. report.html"
        )
    try:
        with out.open("rb") as file:
            head = file.read(_HEAD_BYTES).lower()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; name another file") from error
    if head and (b"<html" not in head or b"pseudoris" not in head):
        raise UsageError(f"--out {out} exists and is no report of pseudoris; name another file")


_HEAD_BYTES = 1 << 16
