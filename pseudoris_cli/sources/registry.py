"""From `--images PATH`, or from what a work directory remembers, to a source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.settings import plugins
from pseudoris_cli.sources.base import Source
from pseudoris_cli.sources.detect import detect

if TYPE_CHECKING:
    from pseudoris_cli.storage.workspace import Workspace


def identify(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Kind and location of a source; `kind` is what the user says it is. UsageError if there is nothing at `path`."""
    if not path.exists():
        raise UsageError(f"--images {path}: there is no such file or folder")
    if kind is not None:
        plugins.locate(plugins.SOURCES, kind)
    return {"kind": kind or detect(path), "root": str(path.resolve())}


def describe(path: Path, options: dict[str, str], image_root: Path | None, kind: str | None = None) -> dict[str, Any]:
    """What `source.json` remembers of a source: also what was chosen in it, by the user (`options`) or by default.

    UsageError if it cannot be opened so, or has nothing to choose from.
    """
    found = {
        **identify(path, kind),
        "options": options,
        "image_root": str(image_root.resolve()) if image_root else None,
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

    images: Path | None = None
    image_root: Path | None = None
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
                f"{workspace.root} has no source yet: name it once with --images (a folder, list or JSON file)"
            )
        description = describe(images, wanted.choices, wanted.image_root, wanted.kind)
        if next(iter(open_source(description).images()), None) is None:
            raise UsageError(
                f"{images} has no images; --images takes a folder of images, a list file, a COCO, REFER or ETRIS file, or an LMDB"
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
    if image_root is not None and str(image_root.resolve()) != known["image_root"]:
        if not image_root.is_dir():
            raise UsageError(f"--image-root {image_root}: there is no such folder")
        with workspace.changing():
            workspace.set_source({**known, "image_root": str(image_root.resolve())})


def open_source(description: dict[str, Any]) -> Source:
    """The source that a work directory remembers."""
    kind = str(description.get("kind", ""))
    try:
        module = plugins.load(plugins.SOURCES, kind)
    except UsageError as error:
        raise UsageError(f"source.json names a kind of source that cannot be opened: {error}") from error
    image_root = description.get("image_root")
    root, relocated = Path(description["root"]), Path(image_root) if image_root else None
    source: Source = module.open_source(root, description["options"], relocated)
    if not isinstance(source, Source):
        raise UsageError(
            f"the kind of source {kind!r} gives a {type(source).__name__}, which is no Source; derive its class from "
            "pseudoris_cli.sources.base.Source or FileReader"
        )
    return source
