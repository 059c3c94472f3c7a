"""From a work directory to the finished file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.report import page, pictures
from pseudoris_cli.report.choosing import Choice
from pseudoris_cli.report.gather import gather
from pseudoris_cli.sources.registry import open_source
from pseudoris_cli.storage import files
from pseudoris_cli.storage.workspace import Artifact, Workspace

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is, how much there is)"""


def write_report(
    workspace: Workspace,
    out: Path,
    choice: Choice,
    start: Artifact | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Write the report of a work directory to `out`, whole or not at all, and return its path.

    `start` is a version to report on, with all that it was made from and that was made from it; without it the version
    that was worked on last. UsageError (exit 2) if there is nothing to report on; EnvironmentStop if it cannot be written.
    """
    description = workspace.source()
    if description is None:
        raise UsageError(
            f"{workspace.root} is no work directory yet; begin with `pseudoris masks --images DIR`, or name --work"
        )
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; name the file, e.g. --out {out / 'report.html'}")
    report = gather(workspace, choice, start, lambda done, total: progress("reading parts", done, total))
    source = open_source(description)
    shown, overlays = [], []
    for number, image in enumerate(report.images):
        progress("pictures", number, len(report.images))
        ref = ImageRef(image.key, 0, image.key)
        shown.append(pictures.picture(source, ref, report.max_pixels, image.sha256))
        overlays.append([pictures.overlay(mask.rle) for mask in image.masks])
    html = page.render(report, shown, overlays)
    with files.os_errors_as_stop(out.parent):
        out.parent.mkdir(parents=True, exist_ok=True)
        files.replace_file(out, html.encode("utf-8", "backslashreplace"))  # paths may be no UTF-8
    return out
