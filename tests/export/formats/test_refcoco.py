"""The refcoco export: read back by pycocotools and by plain pickle, the values REFER needs, streaming and names."""

from __future__ import annotations

import json
import pickle
import pickletools
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.export import base
from pseudoris_cli.export.base import export_name
from pseudoris_cli.export.formats import hf, refcoco
from pseudoris_cli.rle import decode_rle


def _load(folder):
    with (folder / "refcoco" / "refs(pseudo).p").open("rb") as file:
        return pickle.load(file)


@pytest.mark.parametrize("style", ["polygon", "rle"])
def test_masks_boxes_and_captions_come_back(images, context, tmp_path, capsys, style):
    base.write_formats([refcoco], iter(images), replace(context, segmentation=style), tmp_path)
    coco = COCO(str(tmp_path / "refcoco" / "instances.json"))
    refs = {ref["ref_id"]: ref for ref in _load(tmp_path)}
    pairs = [(image, obj) for image in images for obj in image.objects]
    assert len(refs) == len(pairs) == len(coco.anns)
    assert len(coco.imgs) == 8  # the image without objects is left out
    for image, obj in pairs:
        ref, annotation = refs[obj.ref_id], coco.anns[obj.ann_id]
        codes = annotation["segmentation"]
        if style == "polygon":
            codes = coco_mask.frPyObjects(codes, image.height, image.width)
        mask = coco_mask.decode(codes)
        np.testing.assert_array_equal(mask[..., 0].astype(bool), decode_rle(obj.mask.rle))
        assert mask.shape == (image.height, image.width, 1)
        assert annotation["bbox"] == list(obj.mask.bbox)
        assert annotation["area"] == mask.sum()
        assert ref["ann_id"] == annotation["id"]
        assert ref["image_id"] == annotation["image_id"] == image.image_id
        assert ref["category_id"] == annotation["category_id"] == 1
        assert ref["split"] == image.split
        assert [s["raw"] for s in ref["sentences"]] == [s.caption for s in obj.sentences]
        assert ref["sent_ids"] == [s["sent_id"] for s in ref["sentences"]] == [s.sent_id for s in obj.sentences]
        assert all(s["sent"] == " ".join(s["tokens"]) for s in ref["sentences"])
        assert all(s["tokens"] for s in ref["sentences"])
        assert coco.imgs[image.image_id]["file_name"] == image.file_name


def test_refs_pickle_is_what_python_2_and_refer_take(images, context, tmp_path):
    base.write_formats([refcoco], iter(images), context, tmp_path)
    data = (tmp_path / "refcoco" / "refs(pseudo).p").read_bytes()
    opcodes = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) == 2
    assert not opcodes & {"LONG", "LONG1", "LONG4", "GLOBAL", "REDUCE"}  # LONG1 would be `long` in Python 2
    refs = pickle.loads(data)
    assert refs == json.loads((tmp_path / "refcoco" / "refs(pseudo).json").read_text())
    assert {type(ref[key]) for ref in refs for key in ("ref_id", "ann_id", "image_id", "category_id")} == {int}


def test_same_input_same_bytes_and_pictures_in_place(images, context, tmp_path, folder_bytes):
    context = replace(context, images="copy")
    for name in ("a", "b"):
        base.write_formats([refcoco], iter(images), context, tmp_path / name)
    first = folder_bytes(tmp_path / "a")
    assert first == folder_bytes(tmp_path / "b")
    for image in images[:8]:
        expected = context.read_image(image.image_key)
        assert first[f"images/train2014/{image.file_name}"] == expected
        original = tmp_path / "a/images/mscoco/images/train2014" / image.file_name
        assert original.read_bytes() == expected
    assert not [name for name in first if name.endswith((".annotations", ".images"))]


def test_links_lead_to_files_and_what_must_be_turned_is_copied(images, context, tmp_path):
    source = tmp_path / "source.png"
    source.write_bytes(context.read_image(images[0].image_key))

    def locate(key):
        if key == images[1].image_key:
            return None
        if key == images[2].image_key:
            raise FileNotFoundError(key)
        return source

    linked = replace(context, images="link", locate_image=locate)
    base.write_formats([refcoco, hf], iter(images[:2]), linked, tmp_path / "out")
    first, second = (tmp_path / "out/images/train2014" / image.file_name for image in images[:2])
    assert first.resolve() == source
    assert not second.is_symlink()
    assert second.read_bytes() == context.read_image(images[1].image_key)
    rows = pq.read_table(tmp_path / "out/data/train-00000.parquet")["image"].to_pylist()
    assert rows[0] == {"bytes": None, "path": str(source)}
    assert rows[1]["bytes"] == context.read_image(images[1].image_key)
    with pytest.raises(EnvironmentStop, match="Restore the file"):
        base.write_formats([refcoco], iter(images), linked, tmp_path / "gone")


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "//x/evil.png", "./evil.png", "", "a\0.png"]
)
def test_names_cannot_leave_the_export(name, images, context, tmp_path):
    hostile = [replace(images[0], file_name=name)]
    with pytest.raises(UsageError, match="leads out of the export"):
        base.write_formats([refcoco], iter(hostile), replace(context, images="copy"), tmp_path / "out")
    assert not list(tmp_path.rglob("evil.png"))
    safe = [replace(images[0], file_name=export_name(name))]
    base.write_formats([refcoco], iter(safe), replace(context, images="copy"), tmp_path / "safe")
    assert len(list((tmp_path / "safe/images/train2014").rglob("*"))) >= 1


def test_categories_are_listed_once_and_may_not_disagree(images, context, tmp_path):
    first, second = images[0].objects[0], images[1].objects[0]
    dog = replace(first, category=(18, "dog"))
    base.write_formats([refcoco], iter([replace(images[0], objects=(dog, images[0].objects[1]))]), context, tmp_path)
    categories = json.loads((tmp_path / "refcoco/instances.json").read_text())["categories"]
    assert [(c["id"], c["name"]) for c in categories] == [(1, "object"), (18, "dog")]
    cat = replace(second, category=(18, "cat"))
    with pytest.raises(UsageError, match="called both"):
        base.write_formats(
            [refcoco],
            iter([replace(images[0], objects=(dog,)), replace(images[1], objects=(cat,))]),
            context,
            tmp_path / "b",
        )
