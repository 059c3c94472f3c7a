"""Files found by the names that other tools, systems and machines gave them, and texts in every encoding that is written."""

from __future__ import annotations

import json
import os
import pickle
import unicodedata
from pathlib import Path

import pytest

from pseudoris_cli.codecs import foreign_text
from pseudoris_cli.codecs.foreign_names import Finder
from pseudoris_cli.errors import UsageError
from pseudoris_cli.sources import coco, listing
from pseudoris_cli.sources import registry as sources

CAFE = unicodedata.normalize("NFC", "Café")
DECOMPOSED = unicodedata.normalize("NFD", "Café")


def lay(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.mark.parametrize(
    ("there", "named"),
    [
        ("a.jpg", "a.jpg"),
        (f"{DECOMPOSED}.jpg", f"{CAFE}.jpg"),
        (f"{CAFE}.jpg", f"{DECOMPOSED}.jpg"),
        (f"{CAFE}/{DECOMPOSED}.jpg", f"{DECOMPOSED}/{CAFE}.jpg"),
        ("A1.JPG", "a1.jpg"),
        ("val/a.jpg", "val\\a.jpg"),
        ("val/a.jpg", "C:\\data\\val\\a.jpg"),
        ("a.jpg", "/home/somebody/pictures/a.jpg"),
        ("pictures/a.jpg", "/home/somebody/pictures/a.jpg"),
        ("a.jpg", "../../label-studio/data/media/upload/1/a.jpg"),
        ("a.jpg", "/data/upload/1/0a1b2c3d-a.jpg"),
        ("0a1b2c3d-a.jpg", "/data/upload/1/0a1b2c3d-a.jpg"),
        ("in/a b.jpg", "/data/local-files/?d=in/a%20b.jpg"),
        ("my photo.jpg", "my%20photo.jpg"),
        ("val2017/000000000009.jpg", "http://images.example.org/val2017/000000000009.jpg"),
        ("a.jpg", "s3://bucket/some/where/a.jpg?version=3"),
        ("000000000009.jpg", "COCO_val2014_000000000009.jpg"),
        ("deep/er/a.jpg", "a.jpg"),
        ("deep/val/a.jpg", "val/a.jpg"),
        ("./a.jpg", "./a.jpg"),
    ],
)
def test_a_file_is_found_where_it_is(there: str, named: str, tmp_path: Path) -> None:
    lay(tmp_path, there, "other/b.jpg")
    finder = pickle.loads(pickle.dumps(Finder([tmp_path])))
    assert finder.look(named) is not None
    assert finder.look(named).read_text() == there


@pytest.mark.parametrize(
    ("there", "named"),
    [
        (["train/1.jpg"], "val/1.jpg"),
        (["x/1.jpg", "y/1.jpg"], "1.jpg"),
        (["1.jpg"], "2.jpg"),
        (["11.jpg"], "1.jpg"),
        ([], "1.jpg"),
        (["1.jpg"], "\ud800.jpg"),
        (["1.jpg"], "a\0.jpg"),
    ],
)
def test_no_other_file_is_taken_for_it(there: list[str], named: str, tmp_path: Path) -> None:
    lay(tmp_path, "somewhere/else.jpg", *there)
    assert Finder([tmp_path]).look(named) is None


def test_nothing_above_the_root_is_ever_taken(tmp_path: Path) -> None:
    lay(tmp_path, "secret.jpg", "root/a.jpg")
    finder = Finder([tmp_path / "root"])
    assert finder.look("x/../../secret.jpg") is None
    assert finder.look("%2e%2e/secret.jpg") is None
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": str(tmp_path / "secret.jpg")}]}))
    with pytest.raises(UsageError, match="refusing to follow"):
        list(coco.open_source(file, {}, tmp_path / "root").images())


def test_an_address_whose_file_is_here_lets_the_others_be_missing(tmp_path: Path) -> None:
    lay(tmp_path, "val2017/1.jpg")
    images = [{"id": k, "coco_url": f"http://x.org/val2017/{k}.jpg", "neg_category_ids": []} for k in (9, 1)]
    (tmp_path / "lvis.json").write_text(json.dumps({"images": images}))
    source = coco.open_source(tmp_path / "lvis.json", {}, tmp_path)
    assert [image.key for image in source.images()] == ["val2017/9.jpg", "val2017/1.jpg"]
    assert source.read("val2017/1.jpg") == b"val2017/1.jpg"
    assert source.stamp("val2017/9.jpg") is None


@pytest.mark.parametrize(
    ("annotations", "image", "name"),
    [
        ("annotations/instances_default.json", "images/default/a.jpg", "a.jpg"),  # CVAT
        ("annotations/instances_default.json", "images/a.jpg", "a.jpg"),  # CVAT, older
        ("labels.json", "data/a.jpg", "a.jpg"),  # FiftyOne
        ("train/_annotations.coco.json", "train/a_jpg.rf.0123.jpg", "a_jpg.rf.0123.jpg"),  # Roboflow
        ("result.json", "images/0a1b2c3d-a.jpg", "images\\0a1b2c3d-a.jpg"),  # Label Studio
        ("result.json", "images/0a1b2c3d-a.jpg", "../../label-studio/data/media/upload/1/0a1b2c3d-a.jpg"),
        ("annotations/instances_val2017.json", "val2017/a.jpg", "a.jpg"),  # COCO
        ("annotations/lvis_v1_val.json", "val2017/a.jpg", "http://x.org/val2017/a.jpg"),
        ("a.json", "a.jpg", "C:\\Users\\me\\a.jpg"),
    ],
)
def test_annotation_tools_layouts_need_no_flag(annotations: str, image: str, name: str, tmp_path: Path) -> None:
    lay(tmp_path, image, annotations)
    (tmp_path / annotations).write_text(json.dumps({"images": [{"id": 3, "file_name": name}]}))
    source = sources.open_source(sources.describe(tmp_path / annotations, {}, None))
    [found] = source.images()
    assert source.read(found.key) == image.encode()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_and_json_in_every_encoding(encoding: str, end: str, tmp_path: Path) -> None:
    lay(tmp_path, f"{CAFE}.jpg", "b.jpg", "图.jpg")
    lines = ["# mine", f"{CAFE}.jpg", "", '"b.jpg"', "图.jpg", "b.jpg 17", "b.jpg  # again", "'b.jpg',3", "b.jpg\tcat"]
    (tmp_path / "list").write_bytes(end.join([*lines, ""]).encode(encoding))
    if encoding in ("utf-16-le", "utf-16-be"):  # an order without its mark
        assert not (tmp_path / "list").read_bytes().startswith((b"\xff\xfe", b"\xfe\xff"))
    description = sources.describe(tmp_path / "list", {}, None)
    assert description["kind"] == "listing"
    keys = [image.key for image in sources.open_source(description).images()]
    assert keys == [f"{CAFE}.jpg", "b.jpg", "图.jpg", "b.jpg", "b.jpg", "b.jpg", "b.jpg"]
    text = json.dumps({"images": [{"id": 1, "file_name": f"{CAFE}.jpg"}]}, ensure_ascii=False)
    (tmp_path / "c.json").write_bytes(text.encode(encoding))
    assert sources.describe(tmp_path / "c.json", {}, None)["kind"] == "coco"
    (tmp_path / "anns.json").write_bytes('[{"img_name": "b.jpg"}]'.encode(encoding))
    assert sources.identify(tmp_path / "anns.json")["kind"] == "etris_anns"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift-jis"])
def test_eight_bit_encodings_are_refused_with_the_reason(encoding: str, tmp_path: Path) -> None:
    name = "テスト" if encoding == "shift-jis" else CAFE
    (tmp_path / "list.txt").write_bytes(f"a.jpg\n{name}.jpg\n".encode(encoding))
    with pytest.raises(
        UsageError, match=r"list\.txt is not an image list: near line 2 it is not UTF-8 .*save the file as"
    ):
        list(listing.open_source(tmp_path / "list.txt", {}, None).images())
    (tmp_path / "c.json").write_bytes(f'{{"images": [{{"id": 1,\n"file_name": "{name}.jpg"}}]}}'.encode(encoding))
    with pytest.raises(UsageError, match=r"near line 2 it is not UTF-8"):
        list(coco.open_source(tmp_path / "c.json", {}, None).images())


def test_a_list_of_a_million_names_is_not_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n" * 10)
    found = foreign_text.lines(tmp_path / "list.txt", "a list")
    assert next(found) == "a.jpg"
    assert iter(found) is found


def test_json_lines_and_wrong_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"image": "a.jpg"}\n')
    with pytest.raises(UsageError, match="is JSON, not a path"):
        list(listing.open_source(tmp_path / "list.jsonl", {}, None).images())


def test_too_many_files_are_not_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "x/a.jpg", "x/b.jpg", "x/c.jpg")
    monkeypatch.setattr("pseudoris_cli.codecs.foreign_names.MOST_INDEXED", 2)
    finder = Finder([tmp_path])
    assert finder.look("a.jpg") is None
    assert finder.look("/elsewhere/x/a.jpg") == tmp_path / "x" / "a.jpg"
    assert os.fspath(finder.find("nothing.jpg")) == os.fspath(tmp_path / "nothing.jpg")
