"""`reference-csv`: the file and the mask tree that the Pseudo-RIS release trains on.

    pseudo_supervision/cutler_sam/distinctive_captions_cc3m.csv    the train split; other splits: ..._cc3m_<split>.csv
    datasets/pseudo_masks/cutler_sam/<img_id>/<seg_id>.png         0/255, numbered from 0 within the picture
    datasets/images/train2014/<img_name>                           with --images

Every scored candidate is written, since the trainer filters by `doc` itself; it reads both lists with eval(), so they are
Python literals. One-mask pictures carry doc = 100 x correctness and two captions at least, the fewest its rule works on.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pseudoris_cli.formats.base import ExportCandidate, ExportContext, ExportImage, place_picture
from pseudoris_cli.formats.mask_png import encode_png

CANDIDATES = True
COLUMNS = ("index", "img_name", "img_id", "seg_id", "num_sent", "pseudo_caption", "doc", "one_mask")
LARGEST_DOC = 1e6
"""eval() knows no `inf`; an undefined DoC leaves its candidate out."""


def render(images: Iterable[ExportImage], context: ExportContext, folder: Path) -> None:
    """Write one CSV per split and a PNG per row."""
    masks = folder / "datasets" / "pseudo_masks" / "cutler_sam"
    tables: dict[str, _Table] = {}
    with ExitStack() as stack:
        for image in images:
            one_mask = len(image.candidates) == 1
            scored = [(scored.mask, _captions(scored.candidates, one_mask)) for scored in image.candidates]
            usable = [(mask, captions) for mask, captions in scored if captions]
            if not usable:
                continue
            if image.split not in tables:
                tables[image.split] = _Table(folder, image.split, stack)
            place_picture(image, context, folder / "datasets" / "images" / "train2014")
            target = masks / str(image.image_id)
            target.mkdir(parents=True)
            for seg_id, (mask, captions) in enumerate(usable):
                (target / f"{seg_id}.png").write_bytes(encode_png(mask.rle))
                tables[image.split].write(image, seg_id, captions, one_mask)


class _Table:
    """One CSV, as pandas writes it: RFC 4180 quotes, \\n line ends, a running index."""

    def __init__(self, folder: Path, split: str, stack: ExitStack) -> None:
        name = "distinctive_captions_cc3m" + ("" if split == "train" else f"_{split}")
        path = folder / "pseudo_supervision" / "cutler_sam" / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = stack.enter_context(path.open("w", encoding="utf-8", newline=""))
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self._rows = 0

    def write(self, image: ExportImage, seg_id: int, captions: list[tuple[str, float]], one_mask: bool) -> None:
        """One mask of a picture with its captions."""
        texts, docs = [text for text, _ in captions], [doc for _, doc in captions]
        row: tuple[Any, ...] = (self._rows, image.file_name, image.image_id, seg_id, len(texts))
        self._writer.writerow((*row, repr(texts), repr(docs), int(one_mask)))
        self._rows += 1


def _captions(candidates: tuple[ExportCandidate, ...], one_mask: bool) -> list[tuple[str, float]]:
    """(caption, doc) of every candidate whose score is a number."""
    found = []
    for candidate in candidates:
        score = candidate.correctness if one_mask else candidate.doc
        if score is not None and not math.isnan(score):
            doc = 100 * score if one_mask else score
            found.append((candidate.caption, float(max(-LARGEST_DOC, min(doc, LARGEST_DOC)))))
    return 2 * found if one_mask and len(found) == 1 else found
