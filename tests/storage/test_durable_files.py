"""The durable steps: torn and damaged lines, full disks, small files that are always whole."""

from __future__ import annotations

import errno
import tempfile
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage import files


def write_lines(path: Path, records: list[dict]) -> None:
    with FileIO(path, "ab") as file:
        for record in records:
            files.append_line(file, record)


def read(path: Path, start: int = 0) -> list[dict | None]:
    return [record for _, _, record in files.read_lines(path, start)]


def test_lines_come_back_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    records = [{"a": 1}, {"b": "ü\n\u2028"}, {"c": [None, 1.5]}]
    write_lines(path, records)
    assert read(path) == records
    places = [(offset, length) for offset, length, _ in files.read_lines(path)]
    assert [files.read_line(path, *place) for place in places] == records
    assert read(path, places[1][0]) == records[1:]
    assert read(tmp_path / "absent") == []


@given(cut=st.integers(0, 60), tail=st.binary(max_size=5))
def test_a_torn_last_line_is_left_out_and_cut(ram: Path, cut: int, tail: bytes) -> None:
    path = Path(tempfile.mkdtemp(dir=ram)) / "lines"
    records = [{"number": n, "text": "x" * n} for n in range(3)]
    write_lines(path, records)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - min(cut, len(data))] + tail.replace(b"\n", b"?"))
    whole = [record for record in read(path) if record is not None]
    assert whole == records[: len(whole)]
    files.cut_torn_line(path)
    assert read(path) == whole
    write_lines(path, [{"next": 1}])
    assert read(path) == [*whole, {"next": 1}]


def test_a_damaged_line_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"a":1}\nnonsense\n[1]\n{"b":2}\n\xff\xfe\n')
    assert read(path) == [{"a": 1}, None, None, {"b": 2}]
    assert files.cut_torn_line(path)
    assert not files.cut_torn_line(path)
    assert path.read_bytes() == b'{"a":1}\nnonsense\n[1]\n{"b":2}\n'


def test_a_line_longer_than_any_block_is_found_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    write_lines(path, [{"a": "x" * 200_000}, {"b": "y" * 200_000}])
    with path.open("ab") as file:
        file.write(b'{"torn": "' + b"z" * 150_000)
    assert files.cut_torn_line(path)
    assert [len(record["a"] if "a" in record else record["b"]) for record in read(path) if record] == [200_000] * 2


class NearlyFull(FileIO):
    """A disk with room for so many more bytes."""

    room = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(bytes(data)[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 10])
def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path, room: int) -> None:
    path = tmp_path / "lines"
    write_lines(path, [{"a": 1}])
    with NearlyFull(path, "ab") as file:
        file.room = room
        with pytest.raises(OSError, match="No space"):
            files.append_line(file, {"b": "x" * 100})
    assert path.read_bytes() == b'{"a":1}\n'


def test_half_a_surrogate_pair_survives_a_line(tmp_path: Path) -> None:
    write_lines(tmp_path / "lines", [{"error": "\udcff"}])
    assert read(tmp_path / "lines") == [{"error": "\udcff"}]


def test_replacing_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small"
    files.replace_file(path, b"old")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(OSError):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "the disk is full .*committed work is kept. Free space"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "mounted read-only"),
        (errno.EACCES, "cannot write in"),
        (errno.EIO, "committed work is kept, run the same command again"),
    ],
)
def test_what_the_system_refuses_is_explained(code: int, says: str) -> None:
    with pytest.raises(EnvironmentStop, match=says), files.os_errors_as_stop(Path("there")):
        raise OSError(code, "reason")


@pytest.mark.parametrize(("count", "alone"), [(3, 3), (files.FEW, files.FEW), (files.FEW + 1, 0)])
def test_many_files_reach_the_disk_at_once(
    count: int, alone: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(count):
        (tmp_path / "deeper").mkdir(exist_ok=True)
        (tmp_path / "deeper" / str(number)).write_bytes(b"x")
    (tmp_path / "link").symlink_to("nowhere")
    calls: list[str] = []
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setattr(files, "sync_file", lambda path: calls.append(path.name))
    monkeypatch.setattr(files.os, "sync", lambda: calls.append("everything"))
    files.sync_tree(tmp_path)
    assert len(set(calls) - {"everything"}) == alone
    assert calls.count("everything") == (alone == 0)
