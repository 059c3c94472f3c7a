"""Own captions from a table: every form of file, how images and masks are found, bad rows, and the whole way through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invoking import draw_pictures, invoke, rows_of

from pseudoris_cli.backends import table
from pseudoris_cli.codecs.caption_tables import read_table
from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics

ROWS = [
    {"image": "a.jpg", "mask": 0, "text": "the left dog"},
    {"image": "b.jpg", "mask": 0, "text": "a cat"},
    {"image": "a.jpg", "mask": 1, "text": "the right dog"},
    {"image": "a.jpg", "mask": 0, "text": "dog on  the left "},
]


def write(folder: Path, rows: list[Any], name: str) -> Path:
    path = folder / name
    kind = name.rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    else:
        mark = {"csv": ",", "tsv": "\t", "txt": ";"}[kind]
        lines = [list(rows[0])] + [list(row.values()) for row in rows]
        path.write_text("\n".join(mark.join(map(str, line)) for line in lines))
    return path


def image(key: str, masks: int) -> MaskedImage:
    found = []
    for number in range(masks):
        inside = np.zeros((8, 8), bool)
        inside[number : number + 2] = True
        rle = encode_rle(inside)
        found.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 1.0, 1.0))
    return MaskedImage(key, np.zeros((8, 8, 3), np.uint8), tuple(found))


def load(path: Path) -> table.TabledCaptions:
    return table.load(table.Settings(path=str(path)), Numerics(), "cpu")


def texts(captions: list[Any]) -> list[tuple[int, int, str]]:
    return [(c.mask_id, c.candidate_id, c.caption) for c in captions]


@pytest.mark.parametrize("name", ["t.parquet", "t.json", "t.jsonl", "t.csv", "t.tsv", "t.txt", "t.PARQUET"])
def test_every_form_of_file(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, ROWS, name.lower()).rename(tmp_path / name)
    captions = load(path).caption([image("b.jpg", 1), image("a.jpg", 2)])
    assert texts(captions[0]) == [(0, 0, "a cat")]
    assert texts(captions[1]) == [(0, 0, "the left dog"), (0, 1, "dog on the left"), (1, 0, "the right dog")]
    assert {(c.crop, c.sampler, c.logprob) for c in captions[1]} == {("table", "table", 0.0)}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    (tmp_path / "t.csv").write_bytes(
        end.join(["Image,Mask_ID,Caption", 'a.jpg,0,"der Bär, links"', ""]).encode(encoding)
    )
    [found] = load(tmp_path / "t.csv").caption([image("a.jpg", 1)])
    assert texts(found) == [(0, 0, "der Bär, links")]


def test_other_names_lists_and_extras(tmp_path: Path) -> None:
    rows = [
        {
            "image_key": "a.jpg",
            "mask_id": 1.0,
            "captions": ["one", "two", ""],
            "kind": "human",
            "source": "me",
            "logprob": -2,
        },
        {"image_key": "a.jpg", "mask_id": "0", "captions": ["three"], "kind": None, "source": 5},
    ]
    [found] = load(write(tmp_path, rows, "t.jsonl")).caption([image("a.jpg", 2)])
    assert texts(found) == [(0, 0, "three"), (1, 0, "one"), (1, 1, "two")]
    assert [(c.crop, c.sampler, c.logprob, c.tokens) for c in found[::2]] == [
        ("table", "table", 0.0, 1),
        ("human", "me", -2.0, 1),
    ]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.jpg", "train/a.jpg"),
        ("data/train/a.jpg", "train/a.jpg"),
        ("./train/a.jpg", "train/a.jpg"),
        ("train\\a.jpg", "train/a.jpg"),
        ("/home/me/train/a.jpg", "train/a.jpg"),
    ],
)
def test_how_images_are_found(tmp_path: Path, name: str, key: str) -> None:
    path = write(tmp_path, [{"image": name, "mask": 0, "text": "x"}], "t.jsonl")
    assert texts(load(path).caption([image(key, 1)])[0]) == [(0, 0, "x")]
    assert load(path).caption([image("other/b.jpg", 1)]) == [[]]


def test_a_name_is_no_other_path(tmp_path: Path) -> None:
    path = write(tmp_path, [{"image": "val/a.jpg", "mask": 0, "text": "x"}], "t.jsonl")
    assert load(path).caption([image("train/a.jpg", 1), image("xval/a.jpg", 1)]) == [[], []]


def test_masks_that_are_not_there_are_counted(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "mask": 7, "text": "x"},
        {"image": "a.jpg", "mask": None, "text": "x"},
        {"image": "a.jpg", "mask": 1, "text": "good"},
        {"image": "b.jpg", "mask": None, "text": "the only one"},
    ]
    captioner = load(write(tmp_path, rows, "t.jsonl"))
    first, second = captioner.caption([image("a.jpg", 2), image("b.jpg", 1)])
    assert (texts(first), texts(second)) == ([(1, 0, "good")], [(0, 0, "the only one")])
    assert {reason: count for reason, count in captioner.left_out().items() if count} == {
        "texts of masks that the image does not have": 1,
        "texts that name no mask of an image with several": 1,
        "masks without a text": 1,
    }
    assert not any(captioner.left_out().values()), "counted once"


def test_bad_rows_cost_no_good_ones(tmp_path: Path) -> None:
    rows = [
        *ROWS[:1],
        "{broken",
        "[1, 2]",
        "",
        {"image": None, "mask": 0, "text": "x"},
        {"image": "a.jpg", "mask": "first", "text": "x"},
        {"image": "a.jpg", "mask": -1, "text": "x"},
        {"image": "a.jpg", "mask": 0.5, "text": "x"},
        {"image": "a.jpg", "mask": True, "text": "x"},
        {"image": "a.jpg", "mask": 10**30, "text": "x"},
        {"image": "a.jpg", "mask": 0, "text": "  "},
        {"image": "a.jpg", "mask": 0, "text": 5},
        '{"image": "a.jpg", "mask": 0, "text": "\\ud800"}',
        '{"image": "\\ud800.jpg", "mask": 0, "text": "x"}',
        {"image": "a.jpg", "mask": 0},
        *ROWS[2:],
    ]
    found = read_table(write(tmp_path, rows, "t.jsonl"))
    assert found.texts.to_pylist() == ["the left dog", "the right dog", "dog on the left"]
    assert found.bad == {
        "no JSON": 1,
        "no names and values": 1,
        "no image": 1,
        "a mask that is no number": 5,
        "no text": 3,
        "characters that are no UTF-8": 2,
    }
    assert found.first_bad["no JSON"] == "row 2"


def test_bad_rows_of_a_csv(tmp_path: Path) -> None:
    lines = [
        "image,mask,text",
        "a.jpg,0,good",
        "a.jpg,0",
        "a.jpg,0,x,y",
        'a.jpg,0,"' + "w" * 200_000 + '"',
        "a.jpg,1,last",
    ]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode() + b"\na.jpg,0,l\xe4tin\n")
    found = read_table(tmp_path / "t.csv")
    assert found.texts.to_pylist() == ["good", "last"]
    assert sum(found.bad.values()) == 4
    assert found.bad["characters that are no UTF-8"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no column 'image'"),
        (b"name,mask,text\na,0,x\n", "no column 'image' .*it has: 'name', 'mask', 'text'"),
        (b'{"image": "a.jpg", "label": 3}\n', "no column 'text'"),
        (b"image,mask,text\n", "no usable row"),
        (b"image,mask,text\na.jpg,0,\n", "no usable row .1 with no text"),
        (b"[1, 2", "begins as a JSON list"),
        (b"[]", "no usable row"),
        (b"PAR1 and then nothing", "damaged"),
        (bytes(range(256)) * 9, "no column"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UsageError, match=reason):
        load(tmp_path / "t")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    settings = table.Settings(path=str(tmp_path / "none.csv"))
    for ask in (table.version, lambda s: table.check_images(s, ["a.jpg"]), lambda s: table.load(s, Numerics(), "cpu")):
        with pytest.raises(UsageError, match=r"there is no file .*none\.csv"):
            ask(settings)


def test_what_does_not_fit_is_told_before_the_work(tmp_path: Path) -> None:
    settings = table.Settings(path=str(write(tmp_path, [*ROWS, {"image": "a.jpg", "mask": 0}], "t.jsonl")))
    assert table.check_images(settings, ["a.jpg", "b.jpg", "c.jpg"]) == ["t.jsonl: 1 rows with no text (first: row 5)"]
    assert table.check_images(settings, ["x/a.jpg"])[1] == "t.jsonl: 1 of 2 images are not here (first: b.jpg)"
    with pytest.raises(
        UsageError, match=r"no image of .* is in this work directory; it names, for example, 'a\.jpg'.*'z\.png'"
    ):
        table.check_images(settings, ["y.png", "z.png"])
    with pytest.raises(UsageError, match=r"'a\.jpg' fits two images, 'train/a\.jpg' and 'val/a\.jpg'"):
        table.check_images(settings, ["train/a.jpg", "val/a.jpg"])
    assert len(table.check_images(settings, ["val/a.jpg", "a.jpg", "b.jpg"])) == 1, "the equal path is meant"


def test_an_image_that_two_names_fit_fails_alone(tmp_path: Path) -> None:
    rows = [{"image": name, "mask": 0, "text": "x"} for name in ("x/a.jpg", "y/x/a.jpg")]
    captioner = load(write(tmp_path, rows, "t.jsonl"))
    with pytest.raises(table.AmbiguousImage):
        captioner.caption([image("b.jpg", 1), image("z/y/x/a.jpg", 1)])
    assert texts(captioner.caption([image("x/a.jpg", 1)])[0]) == [(0, 0, "x")], "the equal path is meant"


def test_the_version_is_that_of_the_content(tmp_path: Path) -> None:
    one, two = write(tmp_path, ROWS, "one.jsonl"), write(tmp_path, ROWS, "two.jsonl")
    assert table.version(table.Settings(path=str(one))) == table.version(table.Settings(path=str(two)))
    two.write_text(two.read_text() + "\n")
    assert table.version(table.Settings(path=str(one))) != table.version(table.Settings(path=str(two)))


def test_the_whole_way(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 3)
    work = ("--work", tmp_path / "work")
    demo = ("--config", "configs/demo.yaml", "--device", "cpu", "-q")
    assert invoke("masks", "--images", tmp_path / "images", *work, *demo).code == 0
    masks = rows_of(tmp_path / "work", "masks")
    shapes = ("circle", "square", "star")
    rows = [{"image": m["image_key"], "mask": int(m["mask_id"]), "text": f"a red {s}"} for m in masks for s in shapes]
    rows += [{"image": "elsewhere.png", "mask": 0, "text": "x"}, {"image": "000.png", "mask": 99, "text": "y"}, "{"]
    path = write(tmp_path, rows, "own.jsonl")
    own = ("--set", "captions.backend=table", "--set", f"captions.path={path}")
    (tmp_path / "images").rename(tmp_path / "moved")  # no image is read for captions
    done = invoke("captions", *work, *own, *demo)
    assert done.code == 0, done.stderr
    assert "own.jsonl: 1 rows with no JSON" in done.stdout
    assert "own.jsonl: 1 of 4 images are not here (first: elsewhere.png)" in done.stdout
    assert "left out: 1 texts of masks that the image does not have" in done.stdout
    (tmp_path / "moved").rename(tmp_path / "images")
    captions = rows_of(tmp_path / "work", "captions")
    assert [(c["image_key"], c["mask_id"], c["caption"]) for c in captions] == [
        (m["image_key"], m["mask_id"], f"a red {s}") for m in masks for s in shapes
    ]
    done = invoke("run", *work, "--out", tmp_path / "out", "--format", "jsonl", *own, *demo)
    assert done.code == 0, done.stderr
    assert any(line.startswith("captions ") and "nothing to do" in line for line in done.stdout.splitlines())
    lines = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    kept = {row["caption"] for row in rows_of(tmp_path / "work", "filter") if row["kept"]}
    assert len(lines) >= len(kept) > 0
    assert kept <= {f"a red {s}" for s in shapes}


def test_a_refused_table_leaves_nothing(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 1)
    work = ("--work", tmp_path / "work", "--config", "configs/demo.yaml", "--device", "cpu", "-q")
    assert invoke("masks", "--images", tmp_path / "images", *work).code == 0
    path = write(tmp_path, ROWS, "own.csv")
    done = invoke("captions", *work, "--set", "captions.backend=table", "--set", f"captions.path={path}")
    assert done.code == 2
    assert "no image of" in done.stderr
    assert not list((tmp_path / "work" / "captions").glob("*"))


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("C:\\data\\photos\\a.jpg", "photos/a.jpg"),
        ("https://example.org/photos/a%20b.jpg?x=1", "a b.jpg"),
        ("photos/cafe\u0301.jpg", "photos/caf\u00e9.jpg"),
        ("PHOTOS/A.JPG", "photos/a.jpg"),
        ("./a.jpg", "a.jpg"),
    ],
)
def test_names_of_other_machines_and_tools_are_found(written: str, key: str) -> None:
    assert table.Names([written, "other/b.jpg"]).find(key) == [0]


def test_the_name_that_is_written_alike_wins() -> None:
    names = table.Names(["A.jpg", "a.jpg", "x/A.jpg"])
    assert names.find("a.jpg") == [1]
    assert names.find("A.jpg") == [0]
    assert names.find("x/A.jpg") == [2]
    assert table.Names(["x/A.jpg", "x/a.jpg"]).find("a.jpg") == [1], "its own case, in a folder"
    assert table.Names(["x/a.jpg", "y/a.jpg"]).find("a.jpg") == [0, 1], "nobody knows which"
