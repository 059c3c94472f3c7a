"""List files and COCO instances as sources: order, ids, roots, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import coco, listing
from pseudoris_cli.sources import registry as sources


def test_a_list_gives_its_images_in_order_with_ids(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"b")
    (tmp_path / "list.txt").write_text("# mine\nb.png\n\nCOCO_train2014_000000000009.jpg\n")
    assert sources.describe(tmp_path / "list.txt", {}, None)["kind"] == "listing"
    source = listing.open_source(tmp_path / "list.txt", {}, None)
    images = list(source.images())
    assert [image.key for image in images] == ["b.png", "COCO_train2014_000000000009.jpg"]
    assert images[1].image_id == 9
    assert source.read("b.png") == b"b"
    assert source.stamp("COCO_train2014_000000000009.jpg") is None


def test_a_coco_file_keeps_ids_and_finds_its_folder(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    (tmp_path / "val2017" / "x.jpg").write_bytes(b"x")
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps({"images": [{"id": 7, "file_name": "x.jpg"}], "annotations": [], "categories": []}))
    assert sources.describe(file, {}, None)["kind"] == "coco"
    source = coco.open_source(file, {}, None)
    assert [(image.key, image.image_id) for image in source.images()] == [("x.jpg", 7)]
    assert source.read("x.jpg") == b"x"


@pytest.mark.parametrize(
    "images",
    ["x", [3], [{"id": 1}], [{"id": "1", "file_name": "a.jpg"}], [{"id": -1, "file_name": "a.jpg"}],
     [{"id": 2**70, "file_name": "a.jpg"}], [{"id": 1, "file_name": "../../etc/passwd"}],
     [{"id": 1, "file_name": "/etc/passwd"}], [{"id": 1, "file_name": ""}]],
)  # fmt: skip
def test_foreign_metadata_that_makes_no_sense_is_refused(tmp_path: Path, images: object) -> None:
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images}))
    with pytest.raises(UsageError):
        list(coco.open_source(file, {}, None).images())
