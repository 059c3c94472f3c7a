"""PseudoRISDataset on every format that has masks: the same triples as from jsonl, unions and empty masks, workers, damage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from torch.utils.data import DataLoader

from pseudoris_cli.codecs.refer_tokens import clean
from pseudoris_cli.dataset import PseudoRISDataset
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportReference, ExportSentence
from pseudoris_cli.rle import decode_rle

NAMES = ("jsonl", "refcoco", "grefcoco", "coco", "sa-co", "sa2va", "webdataset", "hf")


def exported(name, stream, context, folder, **values):
    folder.mkdir()
    context = replace(context, **({"images": "copy", "sentences": "all"} | values))
    base.write_formats([base.load_format(name)], iter(stream), context, folder)
    return folder


def triples(data):
    return sorted((one["caption"], one["mask"].numpy().tobytes(), one["image"].numpy().tobytes()) for one in data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_every_format_gives_the_same_triples(images, context, tmp_path, split):
    found = {name: triples(PseudoRISDataset(exported(name, images, context, tmp_path / name), split)) for name in NAMES}
    assert len(found["jsonl"]) == sum(len(o.sentences) for i in images if i.split == split for o in i.objects)
    for name in NAMES:
        if name == "sa-co":  # one item for a phrase that two objects of an image have
            assert {one[0] for one in found[name]} == {one[0] for one in found["jsonl"]}
        elif name == "sa2va":  # blank sentences are left out: there are none here
            assert found[name] == found["jsonl"]
        else:
            assert found[name] == found["jsonl"], name


@pytest.mark.parametrize("split", ["train", "val"])
def test_etris_gives_them_with_cleaned_sentences(split, images, context, tmp_path):
    expected = triples(PseudoRISDataset(exported("jsonl", images, context, tmp_path / "jsonl"), split))
    found = triples(PseudoRISDataset(exported("etris", images, context, tmp_path / "etris"), split))
    assert found == sorted((clean(caption)[0], *pixels) for caption, *pixels in expected)


@pytest.mark.parametrize("objects", [1, 3])
def test_the_reference_s_table_gives_what_its_trainer_draws_from(objects, stream_images, context, tmp_path):
    images = list(stream_images(4, objects))
    data = PseudoRISDataset(exported("reference-csv", images, context, tmp_path / "out"))
    drawn = set()
    for image in (image for image in images if image.split == "train"):
        for scored in image.candidates:
            count = max(len(scored.candidates), 2) // 2  # by correctness, of an image's only mask
            ranked = sorted(scored.candidates, key=lambda one: -one.correctness)[:count]
            chosen = ranked if objects == 1 else [one for one in scored.candidates if one.doc > 1]
            drawn |= {(one.caption, decode_rle(scored.mask.rle).tobytes()) for one in chosen}
    assert {(one["caption"], one["mask"].numpy().tobytes()) for one in data} == drawn
    assert drawn


def test_linked_pictures_of_rows_are_read_where_they_lie(images, context, tmp_path):
    rows = exported("hf", images, context, tmp_path / "rows", images="link")
    inside = exported("hf", images, context, tmp_path / "inside")
    assert triples(PseudoRISDataset(rows)) == triples(PseudoRISDataset(inside))


@pytest.mark.parametrize("name", ["grefcoco", "sa-co"])
def test_several_objects_are_united_and_none_is_an_empty_mask(name, images, context, tmp_path):
    both = ExportSentence(sent_id=7001, candidate_id=0, caption="the pair")
    none = ExportSentence(sent_id=7002, candidate_id=0, caption="a zebra")
    more = (
        ExportReference(ref_id=901, objects=images[0].objects[:2], sentences=(both,)),
        ExportReference(ref_id=902, objects=(), sentences=(none,)),
    )
    images[0] = replace(images[0], more_references=more)
    data = PseudoRISDataset(exported(name, images, context, tmp_path / "out"))
    masks = {one["caption"]: one["mask"].numpy() for one in data}
    union = decode_rle(images[0].objects[0].mask.rle) | decode_rle(images[0].objects[1].mask.rle)
    assert np.array_equal(masks["the pair"], union)
    assert masks["a zebra"].shape == union.shape
    assert not masks["a zebra"].any()


@pytest.mark.parametrize("name", ["webdataset", "hf"])
def test_workers_share_the_containers(name, images, context, tmp_path):
    data = PseudoRISDataset(exported(name, images, context, tmp_path / "out", shard_bytes=1 << 14))
    loaded = [one for batch in DataLoader(data, batch_size=None, num_workers=2) for one in [batch]]
    assert [one["caption"] for one in loaded] == [one["caption"] for one in data]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(loaded, data, strict=False))


def test_rows_without_pictures_take_those_of_a_folder(images, context, tmp_path):
    pictures = exported("jsonl", images, context, tmp_path / "pictures") / "images/train2014"
    rows = exported("webdataset", images, context, tmp_path / "rows", images="none")
    assert triples(PseudoRISDataset(rows, image_root=pictures)) == triples(PseudoRISDataset(tmp_path / "pictures"))
    with pytest.raises(UsageError, match="has no image files"):
        PseudoRISDataset(rows)


@pytest.mark.parametrize("name", ["grefcoco", "coco", "sa-co", "sa2va", "webdataset", "hf", "etris", "reference-csv"])
def test_damage_is_named(name, images, context, tmp_path):
    out = exported(name, images, context, tmp_path / "out")
    for path in [*out.rglob("*.json"), *out.glob("*.tar"), *out.rglob("*.parquet"), *out.rglob("*.csv")]:
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UsageError, match=f"is not a whole {name} export"):
        PseudoRISDataset(out)


def test_a_split_that_is_not_there(images, context, tmp_path):
    out = exported("webdataset", images, context, tmp_path / "out")
    with pytest.raises(UsageError, match="'test'"):
        PseudoRISDataset(out, "test")
