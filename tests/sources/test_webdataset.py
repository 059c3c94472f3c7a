"""Tars of images: which members are pictures, what is left out and told, what of a damaged tar is lost."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from odd_images import RGB, save
from packed import member, pack, write_parquet, write_tar

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import Stamp
from pseudoris_cli.sources import registry
from pseudoris_cli.sources.base import LeftOut
from pseudoris_cli.sources.webdataset import Tars

PACKED = "tar files that cannot be read: compressed ({}), so that nothing can be sought; unpack them to plain .tar"
PNG, JPEG = save(RGB, "PNG"), save(RGB, "JPEG")


def listed(root: Path | str) -> tuple[dict[str, bytes], dict[str, int]]:
    """The pictures by key, as far as they can be read, and what was left out."""
    source = registry.open_source(registry.describe(root, {}, None))
    assert isinstance(source, Tars)
    keys = [image.key for image in source.images()]
    assert len(keys) == len(set(keys))
    assert isinstance(source.left_out, LeftOut)
    assert source.left_out.complete
    return {key: source.read(key) for key in keys}, {kind: row["count"] for kind, row in source.left_out.kinds.items()}


def test_img2dataset_s_folder(tmp_path: Path) -> None:
    pictures = {f"{number:09}.jpg": JPEG + bytes([number]) for number in range(9)}
    pack("webdataset", pictures, tmp_path)
    (tmp_path / "00000_stats.json").write_text("{}")
    found, left_out = listed(tmp_path)
    assert found == {f"{n // 4:05}.tar/{n:09}.jpg": JPEG + bytes([n]) for n in range(9)}
    assert left_out == {}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_names(form: int, tmp_path: Path) -> None:
    names = ["ä/ö 1.jpg", "photo", "b.unknown", "c.v2.jpg", "./d.png", "日本.jpg"]
    if form != tarfile.USTAR_FORMAT:
        names.append("n" * 240 + ".jpg")
    write_tar(tmp_path / "a.tar", [member(name, PNG) for name in names], form)
    assert set(listed(tmp_path)[0]) == {f"a.tar/{name.removeprefix('./')}" for name in names}


def test_names_that_are_no_utf_8_stay_apart(tmp_path: Path) -> None:
    names = [os.fsdecode(b"a\xe4.jpg"), os.fsdecode(b"a\xf6.jpg"), "a\\xe4.jpg"]
    write_tar(tmp_path / "a.tar", [member(name, bytes([n])) for n, name in enumerate(names)])
    assert listed(tmp_path)[0] == {"a.tar/a\\xe4.jpg": b"\0", "a.tar/a\\xf6.jpg": b"\1", "a.tar/a\\x5cxe4.jpg": b"\2"}


def test_members_of_one_name_are_two_pictures(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [member("a.jpg", b"1"), member("a.jpg", b"2"), member("a.jpg", b"3")])
    assert list(listed(tmp_path)[0].values()) == [b"1", b"2", b"3"]


def test_further_pictures_of_a_sample_are_told(tmp_path: Path) -> None:
    members = [
        member("0.jpg", b"0"),
        member("0.mask.png", b"m"),
        member("1.small.jpg", b"1"),
        member("1.large.jpg", b"2"),
    ]
    write_tar(tmp_path / "a.tar", members)
    found, left_out = listed(tmp_path)
    assert found == {"a.tar/0.jpg": b"0", "a.tar/1.small.jpg": b"1", "a.tar/1.large.jpg": b"2"}
    assert left_out == {"further pictures of a sample (as 0.mask.png beside 0.jpg)": 1}


@pytest.mark.parametrize(
    ("members", "keys", "kind"),
    [
        ([member("../up.jpg", PNG)], [], "members whose names leave the tar (absolute, or with ..)"),
        ([member("/root.jpg", PNG)], [], "members whose names leave the tar (absolute, or with ..)"),
        ([member("C:/root.jpg", PNG)], [], "members whose names leave the tar (absolute, or with ..)"),
        ([member("s.jpg", b"", tarfile.SYMTYPE, "/etc/passwd")], [], "members that are no plain files: link"),
        ([member("h.jpg", b"", tarfile.LNKTYPE, "/etc/passwd")], [], "members that are no plain files: hard link"),
        ([member("h.jpg", b"", tarfile.LNKTYPE, "ok.jpg")], ["a.tar/h.jpg"], None),
        ([member("d.jpg", b"", tarfile.CHRTYPE)], [], "members that are no plain files: device"),
        ([member("p.jpg", b"", tarfile.FIFOTYPE)], [], "members that are no plain files: device"),
        ([member("s.jpg", b"", tarfile.GNUTYPE_SPARSE)], [], "members that are no plain files: sparse"),
        ([member(".hidden.jpg", PNG)], [], "hidden members (the name begins with a dot)"),
        ([member("._a.jpg", PNG)], [], None),
        ([member("a.heic", b"x")], [], "of a kind that is not read: HEIC"),
        ([member("b.bin", PNG), member("b.txt", PNG), member("b.cls", b"7")], [], None),
        ([member("empty.jpg", b"")], ["a.tar/empty.jpg"], None),
        ([member("no picture.jpg", b"text")], ["a.tar/no picture.jpg"], None),
    ],
)
def test_odd_members(members: list, keys: list[str], kind: str | None, tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [member("ok.jpg", JPEG), *members, member("last.jpg", JPEG)])
    found, left_out = listed(tmp_path)
    assert list(found) == ["a.tar/ok.jpg", *keys, "a.tar/last.jpg"]
    assert left_out == ({kind: 1} if kind else {})
    if keys == ["a.tar/h.jpg"]:
        assert found["a.tar/h.jpg"] == JPEG


def _flip(data: bytearray) -> bytearray:
    data[_second(data) + 5] ^= 1
    return data


def _second(data: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        return tar.getmembers()[1].offset


@pytest.mark.parametrize(
    ("damage", "keys", "reason"),
    [
        (_flip, "02", "damages: the tar has a header with a wrong checksum"),
        (lambda data: data[: _second(data)], "0", "damages: the tar has no end mark: it may have been cut off"),
        (lambda data: data[: _second(data) + 99], "0", "damages: the tar ends within a header"),
        (lambda data: b"", "", "tar files that cannot be read: empty"),
        (lambda data: b"x" * 2000, "", "tar files that cannot be read: no tar: it has a header with a wrong checksum"),
        (gzip.compress, "", PACKED.format("gzip")),
        (bz2.compress, "", PACKED.format("bzip2")),
        (lambda data: b"\x28\xb5\x2f\xfd" + data, "", PACKED.format("zstd")),
    ],
)
def test_a_damaged_tar_costs_its_own_pictures_only(
    damage: Callable[[bytearray], bytes], keys: str, reason: str, tmp_path: Path
) -> None:
    for name in "abc":
        write_tar(tmp_path / f"{name}.tar", [member(f"{number}.jpg", JPEG) for number in range(3)])
    data = bytearray((tmp_path / "b.tar").read_bytes())
    (tmp_path / "b.tar").write_bytes(bytes(damage(data)))
    found, left_out = listed(tmp_path)
    assert list(found) == [f"a.tar/{n}.jpg" for n in "012"] + [f"b.tar/{n}.jpg" for n in keys] + [
        f"c.tar/{n}.jpg" for n in "012"
    ]
    assert left_out == {reason: 1}


def test_a_member_that_is_cut_fails_with_the_reason(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [member("0.jpg", JPEG), member("1.jpg", JPEG)])
    os.truncate(path, _second(path.read_bytes()) + 512 + 10)
    source = Tars(tmp_path, {})
    assert [image.key for image in source.images()] == ["a.tar/0.jpg", "a.tar/1.jpg"]
    assert source.left_out
    assert list(source.left_out.kinds) == ["damages: the tar ends within a member"]
    with pytest.raises(OSError, match="the tar ends within the picture, after 10 of its"):
        source.read("a.tar/1.jpg")


def test_a_member_that_claims_too_much_is_no_burden(tmp_path: Path) -> None:
    info, _ = member("0.jpg")
    info.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + JPEG)
    source = Tars(tmp_path, {})
    assert len(list(source.images())) == 1
    with pytest.raises(OSError, match="more than an image has"):
        source.read("a.tar/0.jpg")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst", "a.tar.xz"])
def test_compressed_tars_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    for images in (tmp_path, tmp_path / name, str(tmp_path / "*")):
        with pytest.raises(UsageError, match=r"compressed tars.*unpack them to plain \.tar"):
            listed(images)
    write_tar(tmp_path / "b.tar", [member("0.jpg", JPEG)])
    assert list(listed(tmp_path)[1].values()) == [1]


@pytest.mark.parametrize(
    ("pattern", "tars"),
    [
        ("{00000..00002}.tar", "012"),
        ("{2..0}.tar", ""),
        ("0000{2..0}.tar", "210"),
        ("0000{1,0}.tar", "10"),
        ("0000[12].tar", "12"),
        ("*.tar", "012"),
        ("0000?.{tar,zip}", "012"),
        ("../{00001..00001}.tar", None),
    ],
)
def test_patterns(pattern: str, tars: str | None, tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / "t" / f"{number:05}.tar", [member("0.jpg", JPEG)])
    images = f"{tmp_path}/t/{pattern}"
    if not tars:
        with pytest.raises(UsageError, match="stands for no tar"):
            listed(images)
        return
    assert list(listed(images)[0]) == [f"0000{number}.tar/0.jpg" for number in tars]


def test_what_braces_name_and_is_not_there_is_told(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", [member("0.jpg", JPEG)])
    assert listed(f"{tmp_path}/{{0..2}}.tar")[1] == {"files that the pattern names and that are not there": 2}


def test_a_folder_is_recognised_by_what_is_in_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", [member("0.jpg", JPEG)])
    write_parquet(tmp_path / "t" / "0.parquet", [])
    (tmp_path / "mixed").mkdir()
    (tmp_path / "mixed" / "0.jpg").write_bytes(JPEG)
    write_tar(tmp_path / "mixed" / "0.tar", [])
    (tmp_path / "mixed" / "9.jpg").write_bytes(JPEG)
    write_tar(tmp_path / "below" / "a" / "0.tar", [])
    kinds = {name: registry.identify(tmp_path / name)["kind"] for name in ("t", "t/0.tar", "mixed", "below")}
    assert kinds == {"t": "webdataset", "t/0.tar": "webdataset", "mixed": "folder", "below": "webdataset"}


def test_tars_in_folders_and_where_they_lie_now(tmp_path: Path) -> None:
    for name in ("x/0.tar", "y/0.tar"):
        write_tar(tmp_path / "old" / name, [member("a.tar/0.jpg", name.encode())])
    described = registry.describe(tmp_path / "old", {}, None, "webdataset")
    (tmp_path / "old").rename(tmp_path / "new")
    source = registry.open_source({**described, "image_root": str(tmp_path / "new")})
    keys = [image.key for image in source.images()]
    assert {key: source.read(key) for key in keys} == {
        "x/0.tar/a.tar/0.jpg": b"x/0.tar",
        "y/0.tar/a.tar/0.jpg": b"y/0.tar",
    }
    with pytest.raises(UsageError, match="does not exist"):
        list(registry.open_source(described).images())


@pytest.mark.parametrize(
    ("images", "keys"), [("old/0.tar", ["0.tar/0.jpg"]), ("old/{0..1}.tar", ["0.tar/0.jpg", "1.tar/0.jpg"])]
)
def test_a_moved_file_or_pattern_stays_what_it_named(images: str, keys: list[str], tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / "old" / f"{number}.tar", [member("0.jpg", JPEG)])
    described = registry.describe(f"{tmp_path}/{images}", {}, None)
    (tmp_path / "old").rename(tmp_path / "new")
    source = registry.open_source({**described, "image_root": str(tmp_path / "new")})
    assert [image.key for image in source.images()] == keys
    assert source.read("0.tar/0.jpg") == JPEG


def test_a_thread_that_asks_for_a_stamp_keeps_no_other_from_reading(tmp_path: Path) -> None:
    pack("webdataset", {f"{n}.png": PNG + bytes([n]) for n in range(8)}, tmp_path)
    source = registry.open_source(registry.describe(tmp_path, {}, None))
    assert isinstance(source, Tars)
    keys = [ref.key for ref in source.images()]
    asked, go_on, stamp = Event(), Event(), source.place.stamp

    def slow(name: str) -> Stamp | None:
        if name == "00001.tar":
            asked.set()
            assert go_on.wait(20)
        return stamp(name)

    source.place.stamp = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(source.read, keys[7])
        assert asked.wait(20)
        try:
            assert pool.submit(source.read, keys[0]).result(10) == PNG + b"\0"
        finally:
            go_on.set()
        assert waiting.result(20) == PNG + b"\7"


def test_a_tar_s_name_may_grow_in_lower_case(tmp_path: Path) -> None:
    """Of a letter that becomes two, and of `.TAR`: the end of the file's name is found in the key as it is."""
    for name in ("\u0130\u0130.tar", "A.TAR"):
        write_tar(tmp_path / name, [member("a.tar.png", PNG)])
    found, left_out = listed(tmp_path)
    assert found == {"\u0130\u0130.tar/a.tar.png": PNG, "A.TAR/a.tar.png": PNG}
    assert left_out == {}
