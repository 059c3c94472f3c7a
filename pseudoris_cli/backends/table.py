"""Your own captions from a table of image, mask and text: Parquet, JSON lines or CSV (docs/captions.md).

They are the candidates as they stand, in the order of the table; no network runs and no image is read. The filter scores them as
it does any other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from pseudoris_cli.codecs.caption_tables import ONLY_MASK, BadTable, CaptionTable, read_table
from pseudoris_cli.codecs.foreign_names import comparable, is_end_of
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Captioner
from pseudoris_cli.records import Caption, MaskedImage
from pseudoris_cli.settings.models import CaptionSettings, Numerics
from pseudoris_cli.settings.resources import expanded
from pseudoris_cli.weights.registry import file_digest

ROLE = "captioner"
GIVEN = "table"
"""Crop and sampler of a caption whose row names none."""


class Settings(CaptionSettings):
    """Where the captions are."""

    NO_RESULT: ClassVar[frozenset[str]] = frozenset({"path", "seed", "image_batch"})  # the file's digest stands for it
    NEEDS_PIXELS: ClassVar[bool] = False

    backend: Literal["table"] = Field("table", description="who writes the candidates")
    path: str = Field(min_length=1, description="Parquet, JSON lines or CSV with columns image, mask and text")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(path="captions.jsonl")


class AmbiguousImage(ValueError):
    """Several images of the table could be this one. The image fails; the run goes on."""


class TabledCaptions(Captioner):
    """The captions of a table, by image and mask."""

    def __init__(self, table: CaptionTable, name: str) -> None:
        self.table, self.name = table, name
        self._found = Names(table.names)
        self._left_out: Counter[str] = Counter()

    def caption(self, images: Sequence[MaskedImage]) -> list[list[Caption]]:
        """The captions of each image, mask by mask, those of a mask in the order of the table.

        Raises AmbiguousImage for an image that several of the table could be.
        """
        left_out: Counter[str] = Counter()
        captions = [self._captions(image, left_out) for image in images]
        self._left_out += left_out  # only now: a batch that fails midway is run again
        return captions

    def left_out(self) -> dict[str, int]:
        """What was left out since this was last asked, by reason."""
        counted, self._left_out = dict(self._left_out), Counter()
        return counted

    def _captions(self, image: MaskedImage, left_out: Counter[str]) -> list[Caption]:
        rows = self._rows(image.key)
        by_mask: dict[int, list[int]] = defaultdict(list)
        for row in rows:
            mask = int(self.table.masks[row])
            if mask == ONLY_MASK and len(image.masks) == 1:
                mask = image.masks[0].mask_id
            by_mask[mask].append(row)
        found = []
        for mask_id in (mask.mask_id for mask in image.masks):
            own = by_mask.pop(mask_id, [])
            left_out["masks without a text"] += not own
            found += [self._caption(mask_id, number, row) for number, row in enumerate(own)]
        left_out["texts that name no mask of an image with several"] += len(by_mask.pop(ONLY_MASK, []))
        left_out["texts of masks that the image does not have"] += sum(map(len, by_mask.values()))
        return found

    def _rows(self, key: str) -> range:
        index = self._found.find(key)
        if len(index) > 1:
            raise AmbiguousImage(f"{self.name} names {len(index)} images that could be this one")
        return range(self.table.offsets[index[0]], self.table.offsets[index[0] + 1]) if index else range(0)

    def _caption(self, mask_id: int, number: int, row: int) -> Caption:
        text = self.table.texts[row].as_py()
        crop, sampler = self.table.label_names[self.table.labels[row]]
        logprob = float(self.table.logprobs[row])
        return Caption(mask_id, number, text, crop or GIVEN, sampler or GIVEN, logprob, len(text.split()))


class Names:
    """The images that a table names, found by the key of an image: the same path, or one path is the end of the other.

    Paths of other machines and tools are compared as `codecs/foreign_names.py` does: drives, addresses, back slashes, other
    Unicode forms and case make no difference.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._paths = [comparable(name) for name in names]
        self._by_last: dict[str, list[int]] = defaultdict(list)
        for number, path in enumerate(self._paths):
            self._by_last[path.rpartition("/")[2]].append(number)

    def find(self, key: str) -> list[int]:
        """The numbers of the names that fit a key; the one that is written like it alone, else the one with the same path."""
        path = comparable(key)
        fitting = [n for n in self._by_last.get(path.rpartition("/")[2], []) if is_end_of(self._paths[n], path)]
        return (
            [n for n in fitting if self.names[n] == key]
            or [n for n in fitting if self._paths[n] == path]
            or [n for n in fitting if key.endswith("/" + self.names[n]) or self.names[n].endswith("/" + key)]
            or fitting
        )


def version(settings: Settings) -> str:
    """The digest of the file, which stands in the version for its contents."""
    return file_digest(_existing(settings))


def load(settings: Settings, numerics: Numerics, device: str) -> TabledCaptions:
    """Read the table. UsageError (exit 2) where it is none; rows that cannot be used are left out and counted."""
    path = _existing(settings)
    return TabledCaptions(_read(path), path.name)


def check_images(settings: Settings, keys: Iterable[str]) -> list[str]:
    """Compare the images of the table with those of a work directory: lines that say what of the table is not used.

    UsageError (exit 2) if no image of the table is there, or if a name of the table fits several images.
    """
    path = _existing(settings)
    table = _read(path)
    names = Names(table.names)
    taken: dict[int, str] = {}
    key = ""
    for key in keys:
        for number in names.find(key):
            if (other := taken.setdefault(number, key)) != key and table.names[number] not in (key, other):
                raise UsageError(
                    f"captions.path: in {path} the name {table.names[number]!r} fits two images, {other!r} and {key!r}; write the "
                    "path from the folder of the images"
                )
    if not taken:
        raise UsageError(
            f"captions.path: no image of {path} is in this work directory; it names, for example, {table.names[0]!r}, while an "
            f"image here is called {key!r}"
        )
    told = [
        f"{path.name}: {count:,} rows with {why} (first: {table.first_bad[why]})" for why, count in table.bad.items()
    ]
    unknown = [name for number, name in enumerate(table.names) if number not in taken]
    if unknown:
        told.append(f"{path.name}: {len(unknown):,} of {len(table.names):,} images are not here (first: {unknown[0]})")
    return told


def _read(path: Path) -> CaptionTable:
    try:
        return read_table(path)
    except (OSError, BadTable) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"captions.path: {path} is no table of captions: {reason}") from error


def _existing(settings: Settings) -> Path:
    path = expanded(settings.path, "captions.path")
    if not path.is_file():
        raise UsageError(f"captions.path: there is no file {path.absolute()}")
    return path
