"""The interface of an export format: what it receives and what it must provide.

A format is one file in `formats/`, named like the format (`-` becomes `_`), that defines

* `open_writer(context, folder)`: a context manager that gives a function to call with each image, in plan order. It
  writes below `folder`, in memory that does not grow with the number of images, and writes the same bytes for the same
  input; leaving the context completes the files. No two formats write the same path, so they share a folder, its image
  files and one pass over the images;
* `CANDIDATES = True` where it wants `ExportImage.candidates` filled;
* `REFERENCES = True` where it can write expressions for several objects or for none (`ExportImage.more_references`);
* `OPTIONS`: names of those fields of `ExportContext` that change what it writes: `segmentation`, `sentences`, `shard_mb`.

The rest of the package does everything else: the index and its ids, plan order, staging and atomic publishing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol, TypeAlias, TypeVar, cast

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.export import destination
from pseudoris_cli.export.polygons import Polygons
from pseudoris_cli.records import Category, Mask
from pseudoris_cli.settings import plugins
from pseudoris_cli.settings.models import SegmentationStyle, SentenceChoice

T = TypeVar("T")
ImageMode: TypeAlias = Literal["copy", "link", "none", "upright"]
"""`upright` is what `copy` does, by the name of what it promises: no file has an orientation that a reader must apply."""
OBJECT_CATEGORY: Category = (1, "object")
"""Category of class-agnostic data. 1 is a real COCO id, which ETRIS' category map needs (it becomes 0)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCandidate:
    """A caption of a mask with its scores (None where undefined: `doc` and `uniqueness` of an image's only mask, `listener` without
    a judge)."""

    candidate_id: int
    caption: str
    crop: str = ""
    sampler: str = ""
    correctness: float | None = None
    uniqueness: float | None = None
    doc: float | None = None
    listener: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSentence(ExportCandidate):
    """A kept caption; `sent_id` is unique over the export."""

    sent_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportObject:
    """A mask with its kept captions, best first. `ref_id` and `ann_id` are unique over the export.

    One that is only a target of `ExportImage.more_references` has no sentences of its own, and their `ref_id`.
    """

    ref_id: int
    ann_id: int
    mask: Mask
    sentences: tuple[ExportSentence, ...]
    category: Category = OBJECT_CATEGORY


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReference:
    """Expressions and what they refer to: one object, several, or none (`objects` is empty). `ref_id` is unique."""

    ref_id: int
    objects: tuple[ExportObject, ...]
    sentences: tuple[ExportSentence, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredMask:
    """A mask, referred to or not, with every candidate that was scored."""

    mask: Mask
    candidates: tuple[ExportCandidate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportImage:
    """One image. `file_name` is a relative POSIX path and `image_id` a positive int64, both unique over the export.

    Width, height and all masks are in the EXIF-upright frame. All ids are plain int (REFER tests `type(x) == int`).
    """

    image_key: str
    image_id: int
    file_name: str
    width: int
    height: int
    split: str
    objects: tuple[ExportObject, ...] = ()
    candidates: tuple[ScoredMask, ...] = ()
    more_references: tuple[ExportReference, ...] = ()

    @property
    def references(self) -> tuple[ExportReference, ...]:
        """Every reference of the image: those of one object, then those of several objects or of none."""
        single = (ExportReference(ref_id=o.ref_id, objects=(o,), sentences=o.sentences) for o in self.objects)
        return (*single, *self.more_references)

    @property
    def targets(self) -> tuple[ExportObject, ...]:
        """Every object that some reference means, once."""
        return tuple({o.ann_id: o for reference in self.references for o in reference.objects}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContext:
    """The names of an export and the access to its image files.

    `read_image(key)` returns the bytes of an image file that every decoder shows upright. `locate_image(key)` returns the
    path of a file with these bytes, or None where there is none because the image had to be rotated; it raises UsageError
    where the source stores its images inside another file. `provenance` is plain JSON: models, settings, counts, licences.
    `segmentation` is how a format writes masks that can write them in two ways; `polygons` makes them. `sentences` says whether
    a format with room for one sentence an object repeats the object for each; `shard_bytes` is how large a shard gets. `formats`
    are the names of all formats that write to the folder.
    """

    dataset: str
    split_by: str
    images: ImageMode
    read_image: Callable[[str], bytes]
    locate_image: Callable[[str], Path | None]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether a listener was asked."""
        return "judge" in self.provenance.get("versions", {})

    segmentation: SegmentationStyle = "polygon"
    polygons: Polygons = field(default_factory=Polygons)
    sentences: SentenceChoice = "best"
    shard_bytes: int = 512 << 20
    formats: tuple[str, ...] = ()


Write: TypeAlias = Callable[[ExportImage], None]


class Format(Protocol):
    """A module of `formats/`."""

    def open_writer(self, context: ExportContext, folder: Path) -> AbstractContextManager[Write]:
        """Begin to write below `folder`. Writing an image raises UsageError where the format cannot represent it."""
        ...


class BySplit(dict[str, T]):
    """The open files of a format by split; those of a split are opened when its first image comes."""

    def __init__(self, stack: ExitStack, opener: Callable[[str], AbstractContextManager[T]]) -> None:
        super().__init__()
        self._open = lambda split: stack.enter_context(opener(split))

    def __missing__(self, split: str) -> T:
        self[split] = opened = self._open(split)
        return opened


def write_formats(
    formats: Sequence[Format], images: Iterable[ExportImage], context: ExportContext, folder: Path
) -> None:
    """Write images in several formats below `folder`, in one pass."""
    context = replace(context, formats=tuple(getattr(one, "__name__", "").rpartition(".")[2] for one in formats))
    with ExitStack() as stack:
        writers = [stack.enter_context(one.open_writer(context, folder)) for one in formats]
        for image in images:
            for write in writers:
                write(image)


def format_names() -> list[str]:
    """Every format, ours and those of installed packages, as `--format` spells it."""
    return plugins.names(plugins.FORMATS)


def load_format(name: str) -> Format:
    """The module of a format; UsageError names the ones there are."""
    module = plugins.load(plugins.FORMATS, name)
    if not hasattr(module, "open_writer"):
        raise UsageError(f"{name!r} is no format: it defines no open_writer(context, folder)")
    return cast(Format, module)


def wants_references(formats: Sequence[Format]) -> bool:
    """Whether `ExportImage.more_references` must be filled for any of these formats."""
    return any(getattr(one, "REFERENCES", False) for one in formats)


def wants_candidates(formats: Sequence[Format]) -> bool:
    """Whether `ExportImage.candidates` must be filled for any of these formats."""
    return any(getattr(one, "CANDIDATES", False) for one in formats)


def export_name(key: str) -> str:
    """The relative path of an image in an export. Most keys are used as they are.

    A list file may name images outside its folder: `/data/a.jpg` becomes `_root/data/a.jpg`, `../a.jpg` `_up/a.jpg`.
    """
    parts = PurePosixPath(key.replace("\0", "_")).parts
    return "/".join("_up" if part == ".." else "_root" if part.startswith("/") else part for part in parts) or "_"


def image_folder(context: ExportContext) -> str:
    """The folder in which ETRIS' REFER looks for image files; all formats use it, so that they can share them."""
    return "images/saiapr_tc-12" if context.dataset == "refclef" else "images/train2014"


def read_image_file(image: ExportImage, context: ExportContext) -> bytes:
    """The bytes of the image file. Raises EnvironmentStop if it is gone or cannot be read."""
    with _readable(image):
        return context.read_image(image.image_key)


def link_target(image: ExportImage, context: ExportContext) -> Path | None:
    """The target of the link under `--images link`; None for an image that must be copied. EnvironmentStop if it is gone."""
    with _readable(image):
        path = context.locate_image(image.image_key)
        return path and path.resolve()


@contextmanager
def _readable(image: ExportImage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentStop(
            f"the image {image.image_key} cannot be read any more ({error.strerror or error}). Restore the file, or run "
            "`pseudoris masks` again to record it as gone"
        ) from error


def save_image_file(image: ExportImage, context: ExportContext, folder: Path) -> None:
    """Copy or link the image file to `folder / file_name`, as `--images` says; an existing file is left alone.

    Raises UsageError for a name that leads out of `folder`."""
    if context.images == "none":
        return
    target = folder / image.file_name
    if image.file_name != export_name(image.file_name):
        raise UsageError(f"the image name {image.file_name!r} leads out of the export folder. Rename the image")
    if target.is_symlink() or target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if context.images == "link" and (original := link_target(image, context)):
        try:
            target.symlink_to(original)
        except OSError as error:
            raise UsageError(destination.no_links(folder, error)) from error
    else:
        target.write_bytes(read_image_file(image, context))
