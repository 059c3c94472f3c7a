"""From `--images PATH`, or from what a work directory remembers, to a source."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.places.addresses import checked_url, is_pattern, is_url
from pseudoris_cli.settings import plugins
from pseudoris_cli.sources.base import Source
from pseudoris_cli.sources.detect import detect

if TYPE_CHECKING:
    from pseudoris_cli.storage.workspace import Workspace


INDEX = "source-index"
"""Folder of a work directory in which a source may keep what it learned of large files."""


def identify(images: Path | str, kind: str | None = None) -> dict[str, Any]:
    """Kind and location of a source; `kind` is what the user says it is. UsageError if there is nothing at `images`.

    A location is a path, a pattern of paths or a URL.
    """
    root = located(images)
    if kind is not None:
        plugins.locate(plugins.SOURCES, kind)
    return {"kind": kind or detect(root), "root": str(root)}


def located(images: Path | str) -> Path | str:
    """A path made absolute, or a URL without what may be secret. UsageError where no file is there (a URL is not looked up)."""
    text = str(images)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if is_url(text):
        return checked_url(text)
    path = Path(os.path.expanduser(text))
    if path.exists():
        return path.resolve()
    if is_pattern(text):
        return Path(os.path.abspath(path))
    if slashed := re.match(r"([a-z0-9+.-]{2,}):/(?!/)", text):
        raise UsageError(f"--images {text}: there is no such file or folder; a URL has two slashes: {slashed[1]}://")
    raise UsageError(f"--images {text}: there is no such file or folder")


def describe(
    path: Path | str, options: dict[str, str], image_root: Path | str | None, kind: str | None = None
) -> dict[str, Any]:
    """What `source.json` remembers of a source: also what was chosen in it, by the user (`options`) or by default.

    UsageError if it cannot be opened so, or has nothing to choose from.
    """
    found = {
        **identify(path, kind),
        "options": options,
        "image_root": str(_moved(image_root)) if image_root else None,
    }
    chosen = open_source(found).options
    for name in options.keys() - chosen.keys():
        flag = f"--source-{name.replace('_', '-')} {options[name]}"
        raise UsageError(f"{flag}: {path} is read as {found['kind']!r}, where there is nothing to choose by that")
    plug_in = plugins.identity(plugins.SOURCES, found["kind"])
    return {**found, "options": chosen} | ({"plug_in": plug_in} if plug_in else {})


@dataclass(frozen=True)
class Wanted:
    """What a user says of the source: where it is, where its images lie, what to take of it, and what it is."""

    images: Path | str | None = None
    image_root: Path | str | None = None
    choices: dict[str, str] = field(default_factory=dict)
    kind: str | None = None


def remember(workspace: Workspace, wanted: Wanted) -> None:
    """Fix the source of a work directory, or check that it is still the same. UsageError (exit 2) if it is another.

    Until images are planned nothing hangs on the source, and a corrected --images replaces a mistaken one.
    """
    images = wanted.images
    if workspace.source() is None or (images is not None and not workspace.has_plan()):
        if images is None:
            raise UsageError(
                f"{workspace.root} has no source yet: name it once with --images (a folder, list or JSON file, tars, "
                "Parquet files or a URL)"
            )
        description = describe(images, wanted.choices, wanted.image_root, wanted.kind)
        if next(iter(open_source(description).images()), None) is None:
            raise UsageError(
                f"{images} has no images; --images takes a folder of images, a list file, a COCO, REFER or ETRIS file, an LMDB, "
                "tars or Parquet files"
            )
        workspace.create()
        if workspace.source() != description:
            with workspace.plan().locked("settings"), workspace.changing():
                if workspace.source() is None or not workspace.has_plan():
                    workspace.set_source(description)
    _check_same(workspace, wanted)


def _check_same(workspace: Workspace, wanted: Wanted) -> None:
    known, images, image_root = workspace.source() or {}, wanted.images, wanted.image_root
    if images is not None and any(identify(images, wanted.kind)[name] != known[name] for name in ("kind", "root")):
        raise UsageError(
            f"{workspace.root} belongs to {known['root']}, not to {images}; one work directory has one source.\n"
            "Use another --work; or, if the same images moved, point to them with --image-root"
        )
    for name, choice in wanted.choices.items():
        if (kept := known["options"].get(name)) != choice:
            has = f"{known['root']} with --source-{name.replace('_', '-')} {kept}" if kept else known["root"]
            raise UsageError(f"{workspace.root} belongs to {has}, not to {choice!r} of it; use another --work")
    if image_root is not None and (moved := str(_moved(image_root))) != known["image_root"]:
        if not is_url(moved) and not is_pattern(moved) and not Path(moved).is_dir():
            raise UsageError(f"--image-root {image_root}: there is no such folder")
        with workspace.changing():
            workspace.set_source({**known, "image_root": moved})


def _moved(image_root: Path | str) -> Path | str:
    return checked_url(str(image_root)) if is_url(str(image_root)) else Path(image_root).resolve()


def source_of(workspace: Workspace) -> Source:
    """The source of a work directory, with the indexes that it keeps there. UsageError where it has none yet."""
    description = workspace.source()
    if description is None:
        raise UsageError(f"{workspace.root} has no source yet; begin with `pseudoris masks --images DIR`")
    return open_source(description, workspace.root / INDEX)


def open_source(description: dict[str, Any], index_folder: Path | None = None) -> Source:
    """The source that a work directory remembers; `index_folder` is where it may keep what it learns of large files."""
    kind = str(description.get("kind", ""))
    try:
        module = plugins.load(plugins.SOURCES, kind)
    except UsageError as error:
        raise UsageError(f"source.json names a kind of source that cannot be opened: {error}") from error
    root, relocated = (_as_path(description.get(name)) for name in ("root", "image_root"))
    if not hasattr(module, "detects_address") and any(isinstance(place, str) for place in (root, relocated)):
        raise UsageError(f"the kind of source {kind!r} reads no URLs; copy {description['root']} here")
    source: Source = module.open_source(root, description["options"], relocated)
    if not isinstance(source, Source):
        raise UsageError(
            f"the kind of source {kind!r} gives a {type(source).__name__}, which is no Source; derive its class from "
            "pseudoris_cli.sources.base.Source or FileReader"
        )
    if index_folder is not None and (keep := getattr(source, "keep_index_in", None)):
        keep(index_folder)
    return source


def _as_path(location: str | None) -> Path | str | None:
    """A path, or the text of a URL."""
    return location if location is None or is_url(location) else Path(location)
