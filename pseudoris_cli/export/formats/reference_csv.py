"""`reference-csv`: the file and the mask tree that the Pseudo-RIS release trains on.

    pseudo_supervision/cutler_sam/distinctive_captions_cc3m.csv    the train split; other splits: ..._cc3m_<split>.csv
    datasets/pseudo_masks/cutler_sam/<img_id>/<seg_id>.png         0/255, numbered from 0 within the image
    datasets/images/train2014/<img_name>                           with --images

Every candidate of a mask is written, since the trainer filters by `doc` itself and takes every eleventh in its beam-search
mode; it reads both lists with eval(), so they are Python literals. Images with one mask carry doc = 100 x correctness and two
captions at least, the fewest its rule works on. A mask without any scored candidate is left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pseudoris_cli.codecs.mask_png import encode_png
from pseudoris_cli.export.base import BySplit, ExportCandidate, ExportContext, ExportImage, Write, save_image_file

CANDIDATES = True
COLUMNS = ("index", "img_name", "img_id", "seg_id", "num_sent", "pseudo_caption", "doc", "one_mask")
LARGEST_DOC = 1e6
"""eval() knows no `inf`."""
UNDEFINED, UNDEFINED_OF_ONE_MASK = 0.0, -100.0
"""What stands for an undefined score, as eval() knows no `nan` either: not above the threshold, not among the best half."""


@contextmanager
def open_writer(context: ExportContext, folder: Path) -> Iterator[Write]:
    """Write one CSV per split and a PNG per row."""
    masks = folder / "datasets" / "pseudo_masks" / "cutler_sam"
    with ExitStack() as stack:
        tables = BySplit(stack, lambda split: _Table(folder, split))

        def write(image: ExportImage) -> None:
            one_mask = len(image.candidates) == 1
            scored = [(scored.mask, _captions(scored.candidates, one_mask)) for scored in image.candidates]
            usable = [(mask, captions) for mask, captions in scored if captions]
            if not usable:
                return
            save_image_file(image, context, folder / "datasets" / "images" / "train2014")
            target = masks / str(image.image_id)
            target.mkdir(parents=True)
            for seg_id, (mask, captions) in enumerate(usable):
                (target / f"{seg_id}.png").write_bytes(encode_png(mask.rle))
                tables[image.split].append(image, seg_id, captions, one_mask)

        yield write


class _Table:
    """One CSV, as pandas writes it: RFC 4180 quotes, \\n line ends, a running index."""

    def __init__(self, folder: Path, split: str) -> None:
        name = "distinctive_captions_cc3m" + ("" if split == "train" else f"_{split}")
        path = folder / "pseudo_supervision" / "cutler_sam" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._rows = 0

    def append(self, image: ExportImage, seg_id: int, captions: list[tuple[str, float]], one_mask: bool) -> None:
        """One mask of an image with its captions."""
        texts, docs = [text for text, _ in captions], [doc for _, doc in captions]
        row: tuple[Any, ...] = (self._rows, image.file_name, image.image_id, seg_id, len(texts))
        self._writer.writerow((*row, repr(texts), repr(docs), int(one_mask)))
        self._rows += 1

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _captions(candidates: tuple[ExportCandidate, ...], one_mask: bool) -> list[tuple[str, float]]:
    """(caption, doc) of every candidate; none where no candidate has a score."""
    docs = [_doc(candidate, one_mask) for candidate in candidates]
    if all(doc is None for doc in docs):
        return []
    undefined = UNDEFINED_OF_ONE_MASK if one_mask else UNDEFINED
    found = [
        (candidate.caption, undefined if doc is None else doc) for candidate, doc in zip(candidates, docs, strict=True)
    ]
    return 2 * found if one_mask and len(found) == 1 else found


def _doc(candidate: ExportCandidate, one_mask: bool) -> float | None:
    score = candidate.correctness if one_mask else candidate.doc
    if score is None or math.isnan(score):
        return None
    return float(max(-LARGEST_DOC, min(100 * score if one_mask else score, LARGEST_DOC)))
