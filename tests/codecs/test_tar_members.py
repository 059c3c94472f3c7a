"""Members of tars: the same as `tarfile` finds in good ones; damage is named, and what follows it is found."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed import member

from pseudoris_cli.codecs.tar_members import Damage, Member, scan

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300)


def scanned(data: bytes) -> list[Member | Damage]:
    return list(scan(lambda offset, size: data[max(offset, 0) : offset + size], len(data)))


def packed(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_good_tars_hold_what_tarfile_finds(files: list[tuple[str, bytes]], form: int) -> None:
    data = packed([member(f"d/{name}", content) for name, content in files], form)
    found = [one for one in scanned(data) if isinstance(one, Member)]
    assert len(found) == len(scanned(data))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(one.name.encode("utf-8", "surrogateescape"), one.offset_data, one.size) for one in tar]
    assert [(one.name, one.offset, one.size) for one in found] == expected
    assert [data[one.offset : one.offset + one.size] for one in found] == [content for _, content in files]


@given(st.binary(max_size=4000))
def test_any_bytes_end(data: bytes) -> None:
    scanned(data)


@given(st.lists(st.tuples(st.integers(0, 5119), st.integers(0, 255)), max_size=12))
def test_any_damage_ends_and_no_member_lies_outside(changes: list[tuple[int, int]]) -> None:
    data = bytearray(packed([member(f"{n}.jpg", bytes([n]) * 700) for n in range(3)], tarfile.PAX_FORMAT))
    for at, value in changes:
        data[at] = value
    for one in scanned(bytes(data)):
        assert one.offset <= len(data)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.SYMTYPE, "link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.FIFOTYPE, "device"),
        (tarfile.DIRTYPE, "folder"),
        (tarfile.CONTTYPE, "file"),
        (tarfile.GNUTYPE_SPARSE, "sparse"),
        (b"V", "other"),
    ],
)
def test_kinds_of_members(kind: bytes, expected: str) -> None:
    found = scanned(packed([member("a.jpg", b"", kind, "b"), member("z.jpg", b"z")]))
    kinds = [(one.kind, one.name.rstrip(b"/")) for one in found if isinstance(one, Member)]
    assert kinds == [(expected, b"a.jpg"), ("file", b"z.jpg")]


def test_a_damaged_header_costs_its_own_member_only() -> None:
    data = bytearray(packed([member(f"{n}.jpg", bytes([n]) * 700) for n in range(4)]))
    data[1 * 1536 + 3] ^= 1
    found = scanned(bytes(data))
    assert [one.name for one in found if isinstance(one, Member)] == [b"0.jpg", b"2.jpg", b"3.jpg"]
    assert [one for one in found if isinstance(one, Damage)] == [Damage(1536, "has a header with a wrong checksum")]


@pytest.mark.parametrize(
    ("cut", "names", "reason"),
    [
        (512 * 3, [b"0.jpg"], "has no end mark: it may have been cut off"),
        (512 * 3 + 100, [b"0.jpg"], "ends within a header"),
        (512 * 4 + 100, [b"0.jpg", b"1.jpg"], "ends within a member"),
        (512 * 6, [b"0.jpg", b"1.jpg"], "has no end mark: it may have been cut off"),
    ],
)
def test_a_cut_tar_says_so(cut: int, names: list[bytes], reason: str) -> None:
    found = scanned(packed([member(f"{n}.jpg", bytes([n]) * 700) for n in range(2)])[:cut])
    assert [one.name for one in found if isinstance(one, Member)] == names
    assert [one.reason for one in found if isinstance(one, Damage)] == [reason]


def test_tars_put_together_with_cat_are_told() -> None:
    one = packed([member("0.jpg", b"0")])
    assert [damage.reason for damage in scanned(one + one) if isinstance(damage, Damage)] == [
        "goes on after its end mark"
    ]


def test_what_the_system_tar_writes_is_read(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ("n" * 180 + ".jpg")).write_bytes(b"long")
    (tmp_path / "a" / "b.jpg").write_bytes(b"x" * 1000)
    for form in ("gnu", "pax", "ustar", "v7"):
        names = ["a/b.jpg"] if form in ("ustar", "v7") else ["a"]
        subprocess.run(["tar", "-C", tmp_path, f"--format={form}", "-cf", tmp_path / "x.tar", *names], check=True)
        data = (tmp_path / "x.tar").read_bytes()
        files = [one for one in scanned(data) if isinstance(one, Member) and one.kind == "file"]
        assert {one.name.decode(): data[one.offset : one.offset + one.size] for one in files} == {
            name: (tmp_path / name).read_bytes() for name in [one.name.decode() for one in files]
        }
        assert b"a/b.jpg" in [one.name for one in files]
        assert not [one for one in scanned(data) if isinstance(one, Damage)]


def test_a_sparse_member_of_the_system_tar_is_known(tmp_path: Path) -> None:
    import subprocess

    with (tmp_path / "s.jpg").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x" * 5000)
    (tmp_path / "t.jpg").write_bytes(b"t")
    for form in ("gnu", "pax"):
        subprocess.run(
            ["tar", "-C", tmp_path, "-S", f"--format={form}", "-cf", tmp_path / "x.tar", "s.jpg", "t.jpg"], check=True
        )
        found = [one for one in scanned((tmp_path / "x.tar").read_bytes()) if isinstance(one, Member)]
        assert [(one.name, one.kind) for one in found] == [(b"s.jpg", "sparse"), (b"t.jpg", "file")]


def test_a_checksum_of_signed_bytes_is_one_too() -> None:
    data = bytearray(packed([member("ä.jpg", b"x")]))
    data[148:156] = b" " * 8
    signed = sum(byte - 256 * (byte > 127) for byte in data[:512])
    data[148:156] = b"%06o\0 " % signed
    assert [one.name for one in scanned(bytes(data)) if isinstance(one, Member)] == ["ä.jpg".encode()]
    data[148:156] = b"%06o\0 " % (signed + 1)
    assert [one.reason for one in scanned(bytes(data)) if isinstance(one, Damage)] == [
        "has a header with a wrong checksum"
    ]
