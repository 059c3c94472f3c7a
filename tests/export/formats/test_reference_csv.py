"""The reference CSV: the text that pandas wrote, lists that eval() reads, masks where the trainer looks for them."""

from __future__ import annotations

import ast
import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest
from locations import FIXTURES
from PIL import Image

from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportCandidate, ExportImage, ScoredMask
from pseudoris_cli.export.formats import reference_csv
from pseudoris_cli.rle import decode_rle

FIXTURE = FIXTURES / "formats/pseudo_csv/distinctive_captions_cc3m.csv"
TRAIN = "pseudo_supervision/cutler_sam/distinctive_captions_cc3m.csv"


def _rows(text):
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _candidates(captions, docs, one_mask):
    return tuple(
        ExportCandidate(candidate_id=i, caption=caption, **({"correctness": doc / 100} if one_mask else {"doc": doc}))
        for i, (caption, doc) in enumerate(zip(captions, docs, strict=True))
    )


def test_the_bytes_are_those_that_pandas_wrote(images, context, tmp_path):
    """The recorded file of the release's own scripts, rendered again from its contents."""
    text = FIXTURE.read_text(encoding="utf-8")
    mask = images[0].candidates[0].mask
    rows, made = _rows(text), []
    for img_id in dict.fromkeys(row["img_id"] for row in rows):
        own = [row for row in rows if row["img_id"] == img_id]
        scored = []
        for row in own:
            captions, docs = ast.literal_eval(row["pseudo_caption"]), ast.literal_eval(row["doc"])
            scored.append(ScoredMask(mask=mask, candidates=_candidates(captions, docs, row["one_mask"] == "1")))
        image = replace(images[0], image_key=img_id, image_id=int(img_id), file_name=own[0]["img_name"], split="train")
        made.append(replace(image, candidates=tuple(scored)))
    base.write_formats([reference_csv], iter(made), context, tmp_path)
    written = (tmp_path / TRAIN).read_text(encoding="utf-8")
    for line, recorded in zip(_rows(written), rows, strict=True):
        docs = [ast.literal_eval(x.pop("doc")) for x in (line, recorded)]
        np.testing.assert_allclose(*docs, rtol=1e-12)  # 100 * (doc / 100) rounds
        assert line == recorded
    many = [(w, r) for w, r in zip(written.splitlines(), text.splitlines(), strict=True) if not r.endswith(",1")]
    assert len(many) > 5
    assert all(w == r for w, r in many)


def test_every_candidate_of_every_mask_and_its_file(images, context, tmp_path):
    unreferred = replace(images[0], objects=())
    images = [unreferred, *images[1:]]
    base.write_formats([reference_csv], iter(images), context, tmp_path)
    rows = _rows((tmp_path / TRAIN).read_text()) + _rows((tmp_path / TRAIN.replace(".csv", "_val.csv")).read_text())
    by_mask = {(int(row["img_id"]), int(row["seg_id"])): row for row in rows}
    assert len(by_mask) == sum(len(image.candidates) for image in images)
    for image in images:
        for seg_id, scored in enumerate(image.candidates):
            row = by_mask[image.image_id, seg_id]
            captions, docs = ast.literal_eval(row["pseudo_caption"]), ast.literal_eval(row["doc"])
            assert captions == [candidate.caption for candidate in scored.candidates]
            assert len(captions) == len(docs) == int(row["num_sent"])
            assert row["one_mask"] == str(int(len(image.candidates) == 1))
            if len(image.candidates) == 1:
                assert docs == [100 * candidate.correctness for candidate in scored.candidates]
            else:
                assert docs == [candidate.doc for candidate in scored.candidates]
            path = tmp_path / "datasets/pseudo_masks/cutler_sam" / str(image.image_id) / f"{seg_id}.png"
            with Image.open(path) as file:
                np.testing.assert_array_equal(np.asarray(file) == 255, decode_rle(scored.mask.rle))
    train = _rows((tmp_path / TRAIN).read_text())
    assert [int(row["index"]) for row in train] == list(range(len(train)))
    assert {row["img_name"] for row in train} == {i.file_name for i in images if i.split == "train" and i.candidates}


@pytest.mark.parametrize(
    ("docs", "written"),
    [
        ([1.5, None, math.nan, 0.5], [1.5, 0.0, 0.0, 0.5]),
        ([math.inf, -math.inf], [1e6, -1e6]),
        ([None, math.nan], None),
    ],
)
def test_docs_that_eval_cannot_read(docs, written, images, context, tmp_path):
    candidates = tuple(ExportCandidate(candidate_id=i, caption=f"c{i}", doc=doc) for i, doc in enumerate(docs))
    whole = images[0].candidates[1]
    image: ExportImage = replace(images[0], candidates=(ScoredMask(mask=whole.mask, candidates=candidates), whole))
    base.write_formats([reference_csv], iter([image]), context, tmp_path)
    rows = _rows((tmp_path / TRAIN).read_text())
    assert len(rows) == (2 if written else 1)
    assert [int(row["seg_id"]) for row in rows] == list(range(len(rows)))  # file names without gaps
    assert ast.literal_eval(rows[0]["doc"]) == (written or [candidate.doc for candidate in whole.candidates])
    assert {row["one_mask"] for row in rows} == {"0"}


def test_an_undefined_correctness_is_the_worst_of_its_mask(images, context, tmp_path):
    candidates = tuple(
        ExportCandidate(candidate_id=i, caption=f"c{i}", correctness=c) for i, c in enumerate([None, -0.1, 0.3, -0.2])
    )
    one = ScoredMask(mask=images[0].candidates[0].mask, candidates=candidates)
    base.write_formats([reference_csv], iter([replace(images[0], candidates=(one,))]), context, tmp_path)
    (row,) = _rows((tmp_path / TRAIN).read_text())
    assert ast.literal_eval(row["doc"]) == pytest.approx([-100, -10, 30, -20])


def test_a_single_caption_of_a_single_mask_is_doubled(images, context, tmp_path):
    one = ScoredMask(mask=images[0].candidates[0].mask, candidates=images[0].candidates[0].candidates[:1])
    base.write_formats([reference_csv], iter([replace(images[0], candidates=(one,))]), context, tmp_path)
    (row,) = _rows((tmp_path / TRAIN).read_text())
    assert ast.literal_eval(row["pseudo_caption"]) == [one.candidates[0].caption] * 2
    assert (row["num_sent"], row["one_mask"]) == ("2", "1")
