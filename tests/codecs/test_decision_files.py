"""Files of decisions made by hand: both forms read alike, and what is wrong with one is said with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pseudoris_cli.codecs.decisions import read_decisions
from pseudoris_cli.errors import UsageError

ROWS = [
    {"image": "a, b.jpg", "mask": 0, "candidate": 3, "text": 'the "red"\ncup ', "decision": "keep"},
    {"image": "ü.jpg", "mask": 12, "candidate": 0, "text": "a dog", "decision": "drop"},
]


def as_json(rows: Any = ROWS, **more: Any) -> bytes:
    return json.dumps(
        {"format": "pseudoris-decisions-1", "masks": "m1", "captions": "c1", "decisions": rows} | more
    ).encode()


CSV = (
    '\ufeffimage,mask,candidate,text,decision,masks,captions\r\n"a, b.jpg",0,3,"the ""red""\ncup ",keep,m1,c1\r\n'
    "ü.jpg,12,0,a dog,DROP,m1,c1\r\n"
)


def test_json_and_csv_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "d.json").write_bytes(as_json())
    (tmp_path / "d.csv").write_bytes(CSV.encode())
    found = [read_decisions(tmp_path / name) for name in ("d.json", "d.csv")]
    for one in found:
        assert one.keep == {("a, b.jpg", 0, 'the "red"\ncup'): True, ("ü.jpg", 12, "a dog"): False}
        assert (one.masks, one.captions) == ("m1", "c1")
    assert found[0].digest != found[1].digest


def test_a_table_by_hand_needs_four_columns_only(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("decision,text,mask,image\nkeep,a cat,1,x.png\n")
    found = read_decisions(tmp_path / "d.csv")
    assert (found.keep, found.masks, found.captions) == ({("x.png", 1, "a cat"): True}, None, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "is not whole JSON"),
        (b"[" * 100_000, "is not whole JSON"),
        (b"[]", 'needs "format": "pseudoris-decisions-1"'),
        (as_json(format="2"), 'needs "format"'),
        (as_json([5]), "decision 1: not a mapping"),
        (as_json([ROWS[1] | {"mask": True}]), "decision 1: `mask` must be the number of a mask, not True"),
        (as_json([ROWS[1] | {"mask": -1.5}]), "`mask` must be"),
        (
            as_json([ROWS[0], ROWS[1] | {"decision": "maybe"}]),
            "decision 2: `decision` must be keep or drop, not 'maybe'",
        ),
        (as_json([ROWS[1] | {"text": " "}]), "`image` and `text` must be texts that are not empty"),
        (as_json([ROWS[1], ROWS[1] | {"decision": "keep"}]), "is kept in one place and dropped in another"),
        (b"image,mask,text\na,0,b\n", "needs a first line with the columns image, mask, text, decision"),
        (b"image,mask,text,decision\na,0,b\n", "row 2: `decision` must be keep or drop, not None"),
        (b"image,mask,text,decision,masks\na,0,b,keep,1\nb,0,b,keep,2\n", "several versions of masks: 1, 2"),
        (b"\xff\xfe\x00", "it is not; save the file as UTF-8"),
        ("a,ü".encode("latin-1"), "it may be latin-1"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "d").write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_decisions(tmp_path / "d")
    assert says in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "utf-32"])
def test_a_table_that_windows_saved_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "d.csv").write_bytes("image,mask,text,decision\nx.png,1,a café,keep\n".encode(encoding))
    assert read_decisions(tmp_path / "d.csv").keep == {("x.png", 1, "a café"): True}


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the decisions .*: No such file"):
        read_decisions(tmp_path / "absent.json")
