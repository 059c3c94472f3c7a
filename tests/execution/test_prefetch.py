"""Reading ahead: a source hears of each image once, in order, as many before the worker as are decoded ahead."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.execution.prefetch import Prefetcher
from pseudoris_cli.execution.tasks import ImageReading, LoadedImage, PartTask
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.folder import Folder
from pseudoris_cli.sources.merged import Merged


class Hearing(Folder):
    """A folder that notes what it is told to expect."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.expected: list[str] = []

    def expect(self, key: str) -> None:
        self.expected.append(key)


@pytest.fixture
def folder(tmp_path: Path) -> Hearing:
    for number in range(10):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
    return Hearing(tmp_path)


def reading(source: Folder | Merged) -> ImageReading:
    return ImageReading(source, decode_threads=2, decode_ahead=3, max_pixels=1000)


def tasks(refs: list[ImageRef]) -> list[PartTask]:
    wanted = frozenset(ref.key for ref in refs)
    return [PartTask(at // 4, tuple(refs[at : at + 4]), wanted, {}, None) for at in range(0, len(refs), 4)]


def test_a_source_hears_what_will_be_read(folder: Hearing) -> None:
    refs = list(folder.images())
    heard, seen = [], []
    for part in Prefetcher(reading(folder), lambda part: None).parts(tasks(refs)):
        for image in part.images:
            assert isinstance(image, LoadedImage)
            seen.append(image.ref.key)
            heard.append(len(folder.expected))
    assert folder.expected == seen == [ref.key for ref in refs]
    assert heard == [3, 4, 5, 6, 7, 8, 9, 10, 10, 10], "as many as are decoded ahead, over the ends of parts"


def test_one_of_several_sources_hears_of_its_own(folder: Hearing) -> None:
    merged = Merged(folder.root, {"a": folder, "b": Folder(folder.root)}, {})
    for part in Prefetcher(reading(merged), lambda part: None).parts(tasks(list(merged.images()))):
        assert all(isinstance(image, LoadedImage) for image in part.images)
    assert folder.expected == [f"{number}.png" for number in range(10)]
