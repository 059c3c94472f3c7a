"""PseudoRISDataset: the same items from exports, from REFER's own data and from a work directory."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import locations
import numpy as np
import pytest
import torch
from invoking import invoke
from PIL import Image
from pycocotools import mask as coco_mask
from torch.utils.data import DataLoader

from pseudoris_cli.dataset import PseudoRISDataset, collate
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base
from pseudoris_cli.export.base import ExportContext, ExportImage, ExportObject, ExportSentence
from pseudoris_cli.export.formats import jsonl, refcoco
from pseudoris_cli.records import ImageRef, Mask
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area, rle_bbox, rle_from_counts
from pseudoris_cli.sources import registry as sources
from pseudoris_cli.storage.manifest import ImageOutcome, ManifestWriter
from pseudoris_cli.storage.rows import mask_row
from pseudoris_cli.storage.schema import COLUMNS, SCHEMA_VERSION
from pseudoris_cli.storage.stage_table import upstream_of
from pseudoris_cli.storage.workspace import Workspace

FIXTURES = locations.FIXTURES / "formats"
CAPTIONS = {(0, 0): ("the red one", "left"), (0, 1): ("the blue one",), (1, 0): ("a dog", "the dog", "dog on the left")}


@dataclass
class World:
    """Two images in a folder, their masks, and where they lie."""

    folder: Path
    masks: dict[tuple[int, int], Mask]

    def name(self, number: int) -> str:
        return f"{number}.png"

    def images(self) -> list[ExportImage]:
        objects: dict[int, list[ExportObject]] = {0: [], 1: []}
        sent_id = 0
        for ref_id, ((number, mask_id), captions) in enumerate(CAPTIONS.items(), 1):
            sentences = []
            for caption in captions:
                sent_id += 1
                sentences.append(ExportSentence(candidate_id=sent_id, caption=caption, sent_id=sent_id))
            mask = self.masks[number, mask_id]
            objects[number].append(ExportObject(ref_id=ref_id, ann_id=ref_id, mask=mask, sentences=tuple(sentences)))
        return [
            ExportImage(
                image_key=self.name(number),
                image_id=number + 1,
                file_name=self.name(number),
                width=30 + number,
                height=20,
                split="train",
                objects=tuple(referred),
            )
            for number, referred in objects.items()
        ]

    def context(self) -> ExportContext:
        return ExportContext(
            dataset="refcoco",
            split_by="pseudo",
            images="copy",
            read_image=lambda key: (self.folder / key).read_bytes(),
            locate_image=lambda key: self.folder / key,
        )


@pytest.fixture
def world(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    masks = {}
    for number in (0, 1):
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30 + number, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        for mask_id in (0, 1):
            mask = np.zeros((20, 30 + number), bool)
            mask[2 + mask_id : 9, 3 : 12 + number] = True
            rle = encode_rle(mask)
            masks[number, mask_id] = Mask(mask_id, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9)
    return World(folder, masks)


def _work_directory(world, root, schema=SCHEMA_VERSION):
    """A finished run of all stages up to filter, in one part; a dropped candidate among the kept."""
    workspace = Workspace(root)
    workspace.create()
    workspace.set_source(sources.describe(world.folder, {}, None))
    workspace.plan().extend([ImageRef(world.name(n), n + 1, world.name(n)) for n in (0, 1)], 32)
    masks = {name: [] for name in (column.name for column in COLUMNS["masks"])}
    for (number, _), mask in world.masks.items():
        row = mask_row(ImageRef(world.name(number), number + 1, world.name(number)), mask)
        for name in masks:
            masks[name].append(row[name])
    filtered = {name: [] for name in (column.name for column in COLUMNS["filter"])}
    for (number, mask_id), captions in CAPTIONS.items():
        for candidate_id, caption in enumerate([*captions, "dropped"]):
            kept = caption != "dropped"
            row = (world.name(number), number + 1, mask_id, candidate_id, caption, "masked", "beam", -1.0, 5)
            row += ("one", 0.3, 1.1, 2.0 - 0.1 * candidate_id, "", 1, kept, "" if kept else "doc")
            for values, value in zip(filtered.values(), row, strict=True):
                values.append(value)
    upstream, version = None, None
    for stage in ("masks", "captions", "scores", "filter"):
        before = upstream_of(stage)
        content = {"schema": schema, "upstream": version, "plan": "plan.jsonl", "settings": {}}
        artifact = workspace.open_version(stage, content, {})
        version = artifact.version
        columns = {"masks": masks, "filter": filtered}.get(stage, {column.name: [] for column in COLUMNS[stage]})
        outcomes = [ImageOutcome(world.name(n), "done") for n in (0, 1)]
        notes = {"kept_masks": 3, "kept": 6} if stage == "filter" else {}
        with ManifestWriter(artifact.folder, stage, "main", {}) as writer:
            upstream = writer.commit(0, columns, outcomes, upstream if before else None, notes, 0.0).file.sha256
    return root


def _root(kind, world, tmp_path):
    root = tmp_path / "root"
    if kind == "work":
        return _work_directory(world, root)
    root.mkdir()
    base.write_formats([{"jsonl": jsonl, "refcoco": refcoco}[kind]], iter(world.images()), world.context(), root)
    return root


@pytest.mark.parametrize("kind", ["jsonl", "refcoco", "work"])
def test_every_sentence_is_an_item(kind, world, tmp_path):
    dataset = PseudoRISDataset(_root(kind, world, tmp_path))
    expected = [(place, caption) for place, captions in CAPTIONS.items() for caption in captions]
    assert len(dataset) == len(expected) == 6
    for item, ((number, mask_id), caption) in zip(dataset, expected, strict=True):
        with Image.open(world.folder / world.name(number)) as file:
            np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), np.asarray(file))
        np.testing.assert_array_equal(item["mask"].numpy(), decode_rle(world.masks[number, mask_id].rle))
        assert item["image"].dtype == torch.uint8
        assert item["mask"].dtype == torch.bool
        assert (item["caption"], item["image_id"]) == (caption, number + 1)
        assert item["ref_id"] == list(CAPTIONS).index((number, mask_id)) + 1
    assert dataset[-1]["caption"] == "dog on the left"
    with pytest.raises(IndexError):
        dataset[6]


@pytest.mark.parametrize("kind", ["jsonl", "work"])
def test_every_mask_is_an_item_with_a_drawn_sentence(kind, world, tmp_path):
    dataset = PseudoRISDataset(_root(kind, world, tmp_path), per="mask")
    assert len(dataset) == 3
    torch.manual_seed(0)
    drawn = {dataset[2]["caption"] for _ in range(60)}
    assert drawn == set(CAPTIONS[1, 0])


def test_transforms_and_workers(world, tmp_path):
    def transform(image, mask, caption):
        return image[:, :16, :16].float() / 255, mask[:16, :16], caption.upper()

    dataset = PseudoRISDataset(_root("jsonl", world, tmp_path), transforms=transform)
    batches = list(DataLoader(dataset, batch_size=3, num_workers=2, multiprocessing_context="fork"))
    assert [tuple(batch["image"].shape) for batch in batches] == [(3, 3, 16, 16)] * 2
    assert batches[0]["mask"].dtype == torch.bool
    assert batches[0]["caption"] == ["THE RED ONE", "LEFT", "THE BLUE ONE"]
    copy = pickle.loads(pickle.dumps(PseudoRISDataset(tmp_path / "root")))
    assert copy[0]["caption"] == "the red one"


def test_work_directories_split_like_exports(world, tmp_path):
    root = _root("work", world, tmp_path)
    sizes = dict.fromkeys(("train", "val"), 0)
    for split in sizes:
        try:
            sizes[split] = len(PseudoRISDataset(root, split=split, shares="train=.5,val=.5"))
        except UsageError:
            assert sizes[split] == 0
    assert sum(sizes.values()) == 6


def test_work_directories_of_schema_version_1_are_read(world, tmp_path, monkeypatch):
    now = COLUMNS["masks"]
    monkeypatch.setitem(COLUMNS, "masks", tuple(c for c in now if not c.name.startswith("category")))
    root = _work_directory(world, tmp_path / "root", schema=1)
    monkeypatch.setitem(COLUMNS, "masks", now)
    assert len(PseudoRISDataset(root)) == 6
    out = invoke("export", "--work", root, "--format", "jsonl", "--out", tmp_path / "out")
    assert out.code == 0, out.stderr
    lines = [json.loads(line) for line in (tmp_path / "out/train.jsonl").open()]
    assert {(line["category_id"], line["category"]) for line in lines} == {(1, "object")}
    for artifact in root.glob("*/*/artifact.json"):
        artifact.write_text(artifact.read_text().replace('"schema": 1', '"schema": 3'))
    out = invoke("export", "--work", root, "--out", tmp_path / "out")
    assert (out.code, "has schema version 3; this pseudoris reads 1, 2" in out.stderr) == (2, True)


def test_refer_s_own_data_with_polygons():
    dataset = PseudoRISDataset(FIXTURES / "refer", per="mask")
    assert len(dataset) == 21
    assert len(PseudoRISDataset(FIXTURES / "refer/refcoco+/refs(unc).p", per="mask")) == 21
    first = dataset[0]
    assert first["caption"] == "red circle left"
    assert (first["image_id"], first["ref_id"]) == (9, 0)
    assert first["mask"].shape == first["image"].shape[1:]
    polygon = [133.23, 70.18, 132.13, 79.94, 128.88, 89.21, 123.66, 97.53, 116.71, 104.47, 108.39, 109.7]
    assert first["mask"][80, 100]
    assert abs(int(first["mask"].sum()) - 5993) < 150  # COCO's geometric area, off by about the outline
    part = coco_mask.decode(coco_mask.frPyObjects([polygon], 240, 320))[..., 0].astype(bool)
    assert (first["mask"].numpy() & part).sum() > 0.9 * part.sum()


def test_what_is_missing_is_said(world, tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UsageError, match="neither a work directory nor"):
        PseudoRISDataset(tmp_path)
    root = _root("jsonl", world, tmp_path)
    with pytest.raises(UsageError, match="split 'val'"):
        PseudoRISDataset(root, split="val")
    dataset = PseudoRISDataset(root)
    Image.new("RGB", (5, 5)).save(root / "images/train2014/0.png")
    with pytest.raises(UsageError, match="is not the image"):
        dataset[0]
    (root / "images").rename(root / "elsewhere")
    (tmp_path / "images").rmdir()  # the folder beside an export is looked into too
    with pytest.raises(UsageError, match="no image files"):
        PseudoRISDataset(root)
    (root / "elsewhere").rename(root / "images")
    (root / "train.jsonl").write_text('{"file_name": 1}\n')
    with pytest.raises(UsageError, match="line 1"):
        PseudoRISDataset(root)


def test_the_loop_of_the_documentation_learns(world, tmp_path, monkeypatch, repository, capsys):
    (tmp_path / "pseudoris-demo").mkdir()
    _work_directory(world, tmp_path / "pseudoris-demo" / "work")
    monkeypatch.chdir(tmp_path)
    code = (repository / "docs" / "training.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {"__name__": "__main__"}
    exec(code, names)
    assert names["losses"][-1] < 0.8 * names["losses"][0]
    assert "3 masks, loss" in capsys.readouterr().out


@pytest.mark.parametrize("counts", ["P" * 10, "", "\u00ff", 5, None])
def test_hostile_masks_are_refused_not_decoded(counts, world, tmp_path):
    root = _root("jsonl", world, tmp_path)
    line = json.loads((root / "train.jsonl").read_text().splitlines()[0])
    line["segmentation"]["counts"] = counts
    (root / "train.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(UsageError, match="line 1"):
        PseudoRISDataset(root)


def test_an_image_above_the_usual_limit_loads(world, tmp_path):
    """It was made under a higher `masks.max_pixels`; its mask says how large the image is."""
    shape = (8000, 5200)
    Image.new("L", shape[::-1], 7).save(world.folder / "large.png")
    counts = rle_from_counts([0, 10, shape[0] * shape[1] - 10], *shape).counts
    line = {"file_name": "large.png", "image_id": 1, "ref_id": 1, "height": shape[0], "width": shape[1]}
    line |= {"segmentation": {"size": list(shape), "counts": counts}, "sentences": [{"caption": "a field"}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(line) + "\n")
    item = PseudoRISDataset(tmp_path, image_root=world.folder)[0]
    assert item["image"].shape == (3, *shape)
    assert item["mask"].sum() == 10
    Image.new("L", (5200, 9000), 7).save(world.folder / "large.png")
    with pytest.raises(UsageError, match=r"large\.png cannot be used"):
        PseudoRISDataset(tmp_path, image_root=world.folder)[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda root: None, "there is no .*root"),
        (lambda root: root.mkdir(), "empty folder"),
        (lambda root: root.write_text("x"), "neither a work directory nor"),
        (lambda root: (root / "x").mkdir(parents=True), "neither a work directory nor"),
    ],
)
def test_a_path_that_is_nothing_says_so(tmp_path, make, reason):
    make(tmp_path / "root")
    with pytest.raises(UsageError, match=reason):
        PseudoRISDataset(tmp_path / "root", image_root=tmp_path)
    with pytest.raises(UsageError, match=reason):
        PseudoRISDataset(str(tmp_path / "root"))


def test_items_of_other_sizes_make_a_batch(world, tmp_path):
    dataset = PseudoRISDataset(_root("jsonl", world, tmp_path))
    items = [dataset[number] for number in range(len(dataset))]
    [batch] = DataLoader(dataset, batch_size=len(items), collate_fn=collate)
    assert batch["image"].shape == (6, 3, 20, 31)
    assert batch["mask"].dtype == torch.bool
    assert batch["size"].tolist() == [[20, 30]] * 3 + [[20, 31]] * 3
    assert batch["caption"] == [item["caption"] for item in items]
    assert batch["ref_id"].tolist() == [item["ref_id"] for item in items]
    assert batch["image_id"].tolist() == [1, 1, 1, 2, 2, 2]
    for number, (item, (height, width)) in enumerate(zip(items, batch["size"].tolist(), strict=True)):
        assert torch.equal(batch["image"][number, :, :height, :width], item["image"])
        assert torch.equal(batch["mask"][number, :height, :width], item["mask"])
        assert not batch["mask"][number, :, width:].any()
        assert not batch["image"][number, :, :, width:].any()
    floats = collate([item | {"image": item["image"].float() / 255, "mask": item["mask"].float()} for item in items])
    assert floats["image"].dtype == floats["mask"].dtype == torch.float32
