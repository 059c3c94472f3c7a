"""A small export: images with masks and captions drawn from a seeded generator."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.export.base import (
    ExportCandidate,
    ExportContext,
    ExportImage,
    ExportObject,
    ExportSentence,
    ScoredMask,
)
from pseudoris_cli.records import Mask
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox

CAPTIONS = (
    "a man's red T-shirt, on the left",
    'the sign that says "it\'s \\ 5, ok"',
    "café-blue box “right” naïve 中文",
    "the dog",
    "?!",
    "a bottle of 1.5 litres",
    "two\nlines, 'single' \"double\"",
)
WEIGHTS = {
    "setting": "masks.sam",
    "network": "sam vit_h",
    "digest": "a7bf",
    "weights": "sam_vit_h",
    "licence": "Apache-2.0",
    "remark": "",
}


def make_images(count: int, objects: int = 3, side: int = 48) -> Iterator[ExportImage]:
    """`count` images with `objects` rectangles each; every object has a candidate more than it has sentences."""
    sent_id = 0
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = side, side + number % 5
        referred, scored = [], []
        for mask_id in range(objects):
            pixels = np.zeros((height, width), bool)
            y, x = rng.integers(0, side - 8, 2)
            pixels[y : y + rng.integers(3, 8), x : x + rng.integers(3, 8)] = True
            rle = encode_rle(pixels)
            mask = Mask(mask_id, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95)
            candidates = tuple(
                ExportCandidate(
                    candidate_id=i,
                    caption=CAPTIONS[(number + mask_id + i) % len(CAPTIONS)],
                    crop="masked",
                    sampler="beam",
                    correctness=0.2 + 0.01 * i,
                    uniqueness=None if objects == 1 else 1.25,
                    doc=None if objects == 1 else 1.5 - 0.25 * i,
                )
                for i in range(2 + mask_id % 3)
            )
            kept = candidates[:-1]
            sentences = tuple(
                ExportSentence(**{f: getattr(c, f) for f in ExportCandidate.__slots__}, sent_id=sent_id + i)
                for i, c in enumerate(kept)
            )
            sent_id += len(kept)
            ref_id = number * objects + mask_id
            referred.append(ExportObject(ref_id=ref_id, ann_id=ref_id + 1, mask=mask, sentences=sentences))
            scored.append(ScoredMask(mask=mask, candidates=candidates))
        yield ExportImage(
            image_key=f"folder {number % 3}/{number:06d}.png",
            image_id=(1 << 51) + number,
            file_name=f"folder {number % 3}/{number:06d}.png",
            width=width,
            height=height,
            split="val" if number % 4 == 3 else "train",
            objects=tuple(referred),
            candidates=tuple(scored),
        )


def image_file(key: str) -> bytes:
    """The bytes of an image's file: a PNG whose colour is its number, of the size `make_images` gives it."""
    number = int(Path(key).stem)
    buffer = io.BytesIO()
    Image.new("RGB", (48 + number % 5, 48), (number % 256, 10, 200)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def images() -> list[ExportImage]:
    """Nine images, of which the fifth has one mask only and the last none."""
    made = list(make_images(9))
    single = list(make_images(5, objects=1))[4]
    made[4] = replace(single, objects=made[4].objects[:1])
    made[8] = replace(made[8], objects=(), candidates=())
    return made


@pytest.fixture
def stream_images() -> Callable[..., Iterator[ExportImage]]:
    """`make_images`, for tests that want another number of them."""
    return make_images


@pytest.fixture
def context() -> ExportContext:
    """Pictures out of memory, as from an LMDB."""
    return ExportContext(
        dataset="refcoco",
        split_by="pseudo",
        images="none",
        read_image=image_file,
        locate_image=lambda key: None,
        provenance={"versions": {"masks": "abc"}, "weights": [WEIGHTS]},
    )


@pytest.fixture
def folder_bytes() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, for comparing two exports."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
