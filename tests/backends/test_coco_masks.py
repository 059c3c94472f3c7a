"""Own masks from COCO JSON: the three encodings, how images are found, and hostile files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pseudoris_cli.backends import coco_masks
from pseudoris_cli.backends import registry as backends
from pseudoris_cli.backends.coco_masks import AnnotatedMasks, BadAnnotation
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.matching import choose
from pseudoris_cli.rle import decode_rle, encode_rle
from pseudoris_cli.settings.models import MaskSettings, Numerics

HEIGHT, WIDTH = 6, 8
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[1:4, 2:7] = True
RLE = encode_rle(MASK)
RUNS = [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8]  # columns of 6: 2 empty columns and 1 pixel, then 3 on, 3 off, ...
SQUARE = [2, 1, 7, 1, 7, 4, 2, 4]


def write(folder: Path, annotations: list[Any], images: list[Any] | None = None) -> Path:
    if images is None:
        images = [{"id": 7, "file_name": "train/1.jpg", "height": HEIGHT, "width": WIDTH}]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def load(path: Path) -> AnnotatedMasks:
    return coco_masks.load(coco_masks.Settings(path=str(path)), Numerics(), "cpu")


def annotation(segmentation: Any, **more: Any) -> dict[str, Any]:
    return {"id": 3, "image_id": 7, "segmentation": segmentation} | more


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        [[2, 1, 4, 1, 4, 4, 2, 4], [4.0, 1, 7, 1, 7, 4, 4, 4]],
        {"size": [HEIGHT, WIDTH], "counts": RUNS},
        {"size": [HEIGHT, WIDTH], "counts": RLE.counts},
    ],
)
def test_every_encoding_gives_the_mask(segmentation: Any, tmp_path: Path) -> None:
    proposer = load(write(tmp_path, [annotation(segmentation)]))
    [[proposal]] = proposer.propose([IMAGE], ["train/1.jpg"])
    assert np.array_equal(decode_rle(proposal.rle), MASK)
    assert proposal.score == 1
    assert coco_masks.Settings.MASKS_ARE_FINAL


def test_masks_are_sorted_by_score_and_each_image_gets_its_own(tmp_path: Path) -> None:
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in (1, 2, 3)]
    path = write(
        tmp_path,
        [
            annotation([SQUARE], image_id=image, score=score)
            for image, score in ((1, 0.2), (2, 0.5), (1, 0.9), (1, 0.2))
        ],
        images,
    )
    found = load(path).propose([IMAGE] * 3, ["3.jpg", "1.jpg", "2.jpg"])
    assert [[proposal.score for proposal in image] for image in found] == [[], [0.9, 0.2, 0.2], [0.5]]


def test_names_match_by_path_or_by_the_end_of_one(tmp_path: Path) -> None:
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg", "3.jpg"]
    proposer = load(write(tmp_path, [], [{"id": k, "file_name": name} for k, name in enumerate(names)]))
    for key, name in (("b/1.jpg", "b/1.jpg"), ("2.jpg", "b/2.jpg"), ("x/y/3.jpg", "3.jpg"), ("x/a/1.jpg", "a/1.jpg")):
        assert proposer.find(key).file_name == name
    with pytest.raises(BadAnnotation, match="lists 2 images"):
        proposer.find("1.jpg")
    for key in ("c/1.jpg", "4.jpg", "12.jpg", "jpg", ""):
        with pytest.raises(BadAnnotation, match="does not list"):
            proposer.find(key)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "neither polygons nor"),
        ([], "neither polygons nor"),
        ("text", "neither polygons nor"),
        ([5], "at least three points"),
        ([[1, 2, 3, 4]], "at least three points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least three points"),
        ([[1, 2, 3, float("nan"), 5, 6]], "no finite number"),
        ([[1, 2, 3, float("inf"), 5, 6]], "no finite number"),
        ([[1, 2, 3, 10**400, 5, 6]], "no finite number"),
        ([[1, 2, "3", 4, 5, 6]], "no finite number"),
        ([[1, 2, True, 4, 5, 6]], "no finite number"),
        ([[9, 1, 12, 1, 12, 4]], "outside the image"),
        ([[1, -9, 3, -9, 3, -1]], "outside the image"),
        ([[1, 1, 1e9, 1, 5, 5]], "further than one image size"),
        ({"counts": RUNS}, "its size is None"),
        ({"size": [WIDTH, HEIGHT], "counts": RUNS}, r"its size is \[8, 6\]"),
        ({"size": [HEIGHT, WIDTH]}, "neither a string nor"),
        ({"size": [HEIGHT, WIDTH], "counts": [1.5, 46.5]}, "neither a string nor"),
        ({"size": [HEIGHT, WIDTH], "counts": [13, 3]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": [50, -2]}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "P" + RLE.counts}, "do not add up"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x00"}, "not a compressed run-length encoding"),
        ({"size": [HEIGHT, WIDTH], "counts": "é"}, "not a compressed run-length encoding"),
        ({"size": [HEIGHT, WIDTH], "counts": "o" * 99}, "not a compressed run-length encoding"),
        ({"size": [HEIGHT, WIDTH], "counts": RLE.counts + "o"}, "cut off"),
    ],
)
def test_a_bad_mask_fails_its_image_only(segmentation: Any, message: str, tmp_path: Path) -> None:
    images = [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "2.jpg"}]
    proposer = load(write(tmp_path, [annotation(segmentation), annotation([SQUARE], image_id=8)], images))
    with pytest.raises(BadAnnotation, match=rf"annotation 3 of instances.json: .*{message}"):
        proposer.propose([IMAGE], ["1.jpg"])
    assert len(proposer.propose([IMAGE], ["2.jpg"])[0]) == 1


@pytest.mark.parametrize("score", [float("nan"), "0.5", None, True])
def test_a_bad_score_fails_the_image(score: Any, tmp_path: Path) -> None:
    with pytest.raises(BadAnnotation, match="no finite number"):
        load(write(tmp_path, [annotation([SQUARE], score=score)])).propose([IMAGE], ["train/1.jpg"])


def test_masks_keep_the_categories_that_the_file_lists(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation([SQUARE], category_id=18), annotation([SQUARE], category_id=1, score=0.5)])
    bare = load(path).propose([IMAGE], ["train/1.jpg"])[0]
    assert [proposal.category for proposal in bare] == [None, None]
    named = json.loads(path.read_text()) | {"categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]}
    path.write_text(json.dumps(named))
    proposals = load(path).propose([IMAGE], ["train/1.jpg"])[0]
    assert [proposal.category for proposal in proposals] == [(18, "dog"), (1, "person")]
    assert [mask.category for mask in choose(None, proposals, MaskSettings()).masks] == [(18, "dog"), (1, "person")]


@pytest.mark.parametrize("category_id", [None, 2, "1", 1.0, True, [1]])
def test_a_category_that_is_not_listed_fails_the_image(category_id: Any, tmp_path: Path) -> None:
    path = write(tmp_path, [annotation([SQUARE], category_id=category_id)])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": [{"id": 1, "name": "person"}]}))
    with pytest.raises(BadAnnotation, match=r"annotation 3 of instances.json: its category_id .* is not among"):
        load(path).propose([IMAGE], ["train/1.jpg"])


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, None), ("6", "8"), ([], {})])
def test_an_image_of_another_size_fails(size: tuple[Any, Any], tmp_path: Path) -> None:
    entry = {"id": 7, "file_name": "1.jpg", "height": size[0], "width": size[1]}
    with pytest.raises(BadAnnotation, match="upright image has 8x6"):
        load(write(tmp_path, [], [entry])).propose([IMAGE], ["1.jpg"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\udcff", "cannot be read as JSON"),
        ("[]", "no lists"),
        ('{"images": []}', "no lists"),
        ('{"images": {}, "annotations": []}', "no lists"),
        ('{"images": [1], "annotations": []}', "image number 0 has no"),
        ('{"images": [{"id": 1}], "annotations": []}', "image number 0 has no"),
        ('{"images": [{"id": [1], "file_name": "a"}], "annotations": []}', "image number 0 has no"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}', "listed twice"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": []}', "listed twice"),
        ('{"images": [], "annotations": [1]}', "number 0 belongs to no listed image"),
        ('{"images": [], "annotations": [{"image_id": 5}]}', "number 0 belongs to no listed image"),
        ('{"images": [], "annotations": [{"image_id": {}}]}', "number 0 belongs to no listed image"),
        ('{"images": [], "annotations": [], "categories": {"id": 1}}', "category 1 has no `name`"),
        ('{"images": [], "annotations": [], "categories": "x"}', "category number 0 has no `id`"),
        ('{"images": [], "annotations": [], "categories": [{"id": true, "name": "a"}]}', "number 0 has no `id`"),
        ('{"images": [], "annotations": [], "categories": [{"id": 4294967296, "name": "a"}]}', "number 0 has no `id`"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "\\ud800"}]}', "1 has no `name`"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "number 1",
        ),
    ],
)
def test_a_file_that_is_no_coco_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=message):
        load(path)


def test_the_version_follows_the_contents_not_the_place(tmp_path: Path) -> None:
    paths = [
        write(_made(tmp_path / name), [annotation([SQUARE])] * count) for name, count in (("a", 1), ("b", 1), ("c", 2))
    ]
    settings = [MaskSettings(proposals={"backend": "coco_masks", "path": str(path)}).proposals for path in paths]
    first, moved, changed = [backends.identify(one, "masks.proposals") for one in settings]
    assert first == moved != changed
    assert backends.results_of(settings[0]) == {"backend": "coco_masks"}


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_missing_file_is_an_error_before_anything_runs(tmp_path: Path) -> None:
    settings = coco_masks.Settings(path=str(tmp_path / "no.json"))
    for act in (lambda: coco_masks.version(settings), lambda: coco_masks.load(settings, Numerics(), "cpu")):
        with pytest.raises(UsageError, match="there is no file"):
            act()


TRIANGLE = [1, 1, 4, 1, 4, 4]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"segmentation": []}, "boxes without a mask"),
        ({"segmentation": None}, "boxes without a mask"),
        ({"segmentation": [[]]}, "boxes without a mask"),
        ({"segmentation": {}}, "boxes without a mask"),
        ({}, "boxes without a mask"),
        ({"segmentation": [[1, 2, 3, 4]]}, "polygons of fewer than three points"),
        ({"segmentation": [[1, 2]]}, "polygons of fewer than three points"),
        ({"segmentation": [[90, 90, 95, 90, 95, 95]]}, "polygons outside the image"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "damaged masks"),
        ({"segmentation": [[1, 2, "x", 4, 5, 6]]}, "damaged masks"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": RUNS}}, "damaged masks"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": "\x00"}}, "damaged masks"),
        ({"segmentation": [SQUARE], "score": "high"}, "masks whose score is no number"),
        ({"segmentation": [SQUARE], "category_id": None}, "masks of a category that is not listed"),
        ({"segmentation": [SQUARE], "category_id": 99}, "masks of a category that is not listed"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_bad_annotation_never_costs_the_good_ones(
    bad: dict[str, Any], kind: str, first: bool, tmp_path: Path
) -> None:
    wrong = {"id": 4, "image_id": 7, "category_id": 1} | bad
    good = [annotation([SQUARE], category_id=1), annotation([TRIANGLE], category_id=1)]
    path = write(tmp_path, [wrong, *good] if first else [*good, wrong])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": [{"id": 1, "name": "thing"}]}))
    proposer = load(path)
    [found] = proposer.propose([IMAGE], ["train/1.jpg"])
    assert len(found) == 2
    assert np.array_equal(decode_rle(found[0].rle), MASK)
    assert proposer.left_out() == {kind: 1}
    proposer.propose([IMAGE], ["train/1.jpg"])
    assert proposer.left_out() == {kind: 1}, "since it was last asked"


def test_a_speck_beside_a_polygon_of_the_same_object_costs_only_itself(tmp_path: Path) -> None:
    proposer = load(write(tmp_path, [annotation([[3, 3, 4, 4], SQUARE, [1, 1]])]))
    [[found]] = proposer.propose([IMAGE], ["train/1.jpg"])
    assert np.array_equal(decode_rle(found.rle), MASK)
    assert proposer.left_out() == {"polygons of fewer than three points": 2}


def test_crowd_regions_are_kept_or_dropped_as_asked(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation([SQUARE]), annotation({"size": [HEIGHT, WIDTH], "counts": RUNS}, iscrowd=1)])
    assert len(load(path).propose([IMAGE], ["train/1.jpg"])[0]) == 2
    settings = coco_masks.Settings(path=str(path), crowd="drop")
    dropping = coco_masks.load(settings, Numerics(), "cpu")
    assert len(dropping.propose([IMAGE], ["train/1.jpg"])[0]) == 1
    assert dropping.left_out() == {"crowd regions": 1}
    assert backends.results_of(coco_masks.Settings(path=str(path))) == {"backend": "coco_masks"}
    assert backends.results_of(settings) == {"backend": "coco_masks", "crowd": "drop"}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("Cafe\u0301.jpg", "Caf\u00e9.jpg"),
        ("val\\1.jpg", "val/1.jpg"),
        ("C:\\data\\val\\1.jpg", "val/1.jpg"),
        ("/home/me/1.jpg", "1.jpg"),
        ("my%20photo.jpg", "my photo.jpg"),
        ("A.JPG", "a.jpg"),
        ("../../upload/1.jpg", "1.jpg"),
    ],
)
def test_entries_of_other_machines_are_matched(name: str, key: str, tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "other.jpg"}, {"id": 2, "file_name": name}]
    proposer = load(write(tmp_path, [annotation([SQUARE], image_id=2)], images))
    assert len(proposer.propose([IMAGE], [key])[0]) == 1


def test_an_address_is_a_name_and_homeless_annotations_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [{"id": 7, "coco_url": "http://x.org/val2017/1.jpg"}]
    path = write(tmp_path, [annotation([SQUARE]), annotation([SQUARE], image_id=99)], images)
    with caplog.at_level("WARNING", "pseudoris"):
        assert len(load(path).propose([IMAGE], ["val2017/1.jpg"])[0]) == 1
    assert "1 annotations are left out; the first: annotation number 1 belongs to no listed image" in caplog.text
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load(path).propose([IMAGE], ["val2017/1.jpg"])[0]) == 1
