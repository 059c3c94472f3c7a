"""`pseudoris merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pseudoris_cli.cli.console import out, print_json
from pseudoris_cli.errors import UsageError


def merge(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="the new work directory")],
    works: Annotated[list[Path], typer.Argument(metavar="WORK...", help="work directories made with equal settings")],
    version: Annotated[
        str | None, typer.Option("--from", metavar="VERSION", help="version of filter  [default: current]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
) -> None:
    """Make one work directory from several of equal settings: several sources, several sites.

    Their parts are copied in the order given, each image under the name of its work directory; the images stay where they are.
    Images with equal bytes are reported and kept. Ids are made anew by the next export.

    Example: pseudoris merge all siteA/work siteB/work. Next: pseudoris export --work all --out OUT
    """
    from pseudoris_cli.storage.merge import merge as merge_sites
    from pseudoris_cli.storage.merge import open_sites
    from pseudoris_cli.storage.workspace import Workspace

    if len(works) < 2:
        raise UsageError("name two work directories or more after OUT")
    sites = open_sites(works, version)
    merged = merge_sites(Workspace(folder), sites)
    if as_json:
        print_json(
            {
                "out": str(folder),
                "works": {site.label: str(site.workspace.root) for site in sites},
                "parts": merged.parts,
                "images": merged.images,
                "duplicate_images": merged.duplicate_images,
                "duplicates": merged.duplicates,
            }
        )
        return
    names = ", ".join(site.label for site in sites)
    out.print(f"{merged.images:,} images in {merged.parts:,} parts from {names}", markup=False)
    if merged.duplicate_images:
        out.print(f"{merged.duplicate_images:,} images have the bytes of an earlier one and are kept:", markup=False)
        for key, first in merged.duplicates:
            out.print(f"  {key} = {first}", markup=False)
    out.print(f"next: pseudoris export --work {folder} --out OUT", markup=False)
