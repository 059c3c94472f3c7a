"""Manifests: the last generation wins, damaged lines count for nothing, strays go."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pseudoris_cli.errors import EnvironmentStop
from pseudoris_cli.storage import manifest as manifests
from pseudoris_cli.storage.manifest import ImageOutcome, Manifest, ManifestWriter, PartEntry, writer_name
from pseudoris_cli.storage.parts import part_name, read_header, read_part
from pseudoris_cli.storage.schema import COLUMNS


@contextmanager
def writing(folder: Path, writer: str = "main") -> Iterator[ManifestWriter]:
    with ManifestWriter(folder, "export", writer, {"version": "v", "settings": {"a": 1}}) as opened:
        yield opened


def commit(writer: ManifestWriter, part: int, text: str = "x", images: list[ImageOutcome] | None = None) -> PartEntry:
    values: dict[str, Any] = {name: [7] for name in ("ref_id", "ann_id", "sent_id", "mask_id", "candidate_id")}
    columns = values | {"split": ["train"], "image_key": [f"{part}.png"], "caption": [text]}
    assert set(columns) == {column.name for column in COLUMNS["export"]}
    images = images or [ImageOutcome(f"{part}.png", "done", 1, None, 5, 6, "abc")]
    return writer.commit(part, columns, images, None, {"note": part}, 1.23456)


def captions(folder: Path) -> dict[int, str]:
    manifest = Manifest(folder)
    return {part: read_part(manifest.path_of(entry))["caption"][0] for part, entry in sorted(manifest.entries.items())}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".parquet", ".tmp"))


def test_a_commit_is_read_back(tmp_path: Path) -> None:
    outcomes = [
        ImageOutcome("a.png", "done", 1, None, 10, 20, "digest"),
        ImageOutcome("b.png", "failed", 0, "no picture", 3, 4, "other"),
        ImageOutcome("c.png", "gone", 0, "the image is gone"),
    ]
    with writing(tmp_path) as writer:
        entry = commit(writer, 0, images=outcomes)
    manifest = Manifest(tmp_path)
    assert manifest.entries == {0: entry}
    assert manifest.entries[0].images == outcomes
    assert manifest.counts() == {"done": 1, "empty": 0, "failed": 1, "gone": 1}
    assert list(manifest.failures()) == outcomes[1:]
    assert manifest.is_intact(entry, digest=True)
    assert read_header(manifest.path_of(entry)) == {"version": "v", "settings": {"a": 1}}


def test_a_redo_is_a_new_generation_and_the_old_file_goes(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        commit(writer, 0, "old")
        assert commit(writer, 0, "new").generation == 1
    assert captions(tmp_path) == {0: "new"}
    assert names(tmp_path) == [part_name(0, 1, "main")]
    with writing(tmp_path) as writer:
        assert commit(writer, 0, "newest").generation == 2
    assert captions(tmp_path) == {0: "newest"}


def test_writers_are_united_and_touch_only_their_own(tmp_path: Path) -> None:
    with writing(tmp_path, "shard-0-of-2") as even, writing(tmp_path, "shard-1-of-2") as odd:
        commit(even, 0, "zero")
        commit(odd, 1, "one")
        odd.manifest.refresh()
        commit(odd, 0, "zero again")
    assert captions(tmp_path) == {0: "zero again", 1: "one"}
    assert part_name(0, 0, "shard-0-of-2") in names(tmp_path)
    with writing(tmp_path, "main") as main:
        assert main.removed == []
    with writing(tmp_path, "shard-0-of-2") as even:
        assert even.removed == [part_name(0, 0, "shard-0-of-2")]
    assert captions(tmp_path) == {0: "zero again", 1: "one"}


def test_of_equal_generations_every_reader_takes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "SCAN_FRACTION", math.inf)
    with writing(tmp_path, "shard-1-of-2") as late, writing(tmp_path, "main") as main:
        commit(late, 0, "shard")
        commit(main, 0, "main")
        late.manifest.refresh()
        assert late.manifest.entries[0].file.name == main.manifest.entries[0].file.name == part_name(0, 0, "main")
    assert captions(tmp_path) == {0: "main"}


def test_strays_of_a_crash_go_with_their_writer_only(tmp_path: Path) -> None:
    strays = [part_name(3, 0, "main"), f".{part_name(4, 0, 'main')}.tmp", part_name(5, 1, "shard-0-of-2")]
    for name in [*strays, "notes.parquet", "part-1.parquet"]:
        (tmp_path / name).write_bytes(b"stray")
    with writing(tmp_path) as writer:
        assert writer.removed == sorted(strays[:2])
    assert sorted(names(tmp_path)) == sorted([strays[2], "notes.parquet", "part-1.parquet"])


@pytest.mark.parametrize(
    "damage", [b"nonsense", b'{"part": 1}', b'{"part": 1, "generation": 0, "file": 3}', b"\0" * 40]
)
def test_a_damaged_line_is_as_good_as_none(tmp_path: Path, damage: bytes) -> None:
    with writing(tmp_path) as writer:
        for part in range(3):
            commit(writer, part, str(part))
    path = tmp_path / "manifest-main.jsonl"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], damage, lines[2]]) + b"\n")
    manifest = Manifest(tmp_path)
    assert sorted(manifest.entries) == [0, 2]
    assert manifest.damaged == 1
    with writing(tmp_path) as writer:
        assert writer.removed == [part_name(1, 0, "main")]
        commit(writer, 1, "again")
    assert captions(tmp_path) == {0: "0", 1: "again", 2: "2"}


def test_a_torn_line_is_cut_and_its_part_removed(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        commit(writer, 0)
        commit(writer, 1)
    path = tmp_path / "manifest-main.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    assert sorted(Manifest(tmp_path).entries) == [0]
    with writing(tmp_path) as writer:
        assert writer.cut
        assert writer.removed == [part_name(1, 0, "main")]


def test_refresh_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "SCAN_FRACTION", math.inf)
    with writing(tmp_path, "shard-0-of-2") as writer, writing(tmp_path, "shard-1-of-2") as other:
        for part in range(50):
            commit(writer, part)
        reader = Manifest(tmp_path)
        read: list[int] = []
        entry_of = manifests._entry
        monkeypatch.setattr(manifests, "_entry", lambda *a: read.append(1) or entry_of(*a))
        reader.refresh()
        assert not read
        commit(other, 50)
        commit(writer, 51)
        read.clear()
        reader.refresh()
        assert len(read) == 2
        assert sorted(reader.entries) == list(range(52))


def test_a_manifest_has_one_writer_at_a_time(tmp_path: Path) -> None:
    with writing(tmp_path), pytest.raises(EnvironmentStop, match="in use by pid"), writing(tmp_path):
        pass
    with writing(tmp_path), writing(tmp_path, writer_name((1, 4))):
        pass


def test_lines_stay_small(tmp_path: Path) -> None:
    """docs/artifacts.md names what a line holds; 10 million images must stay readable."""
    images = [ImageOutcome(f"{n:012}.jpg", "done", 3, None, 123456, 1700000000123456789, "0" * 64) for n in range(32)]
    with writing(tmp_path) as writer:
        commit(writer, 0, images=images)
    line = (tmp_path / "manifest-main.jsonl").read_bytes()
    assert len(line) / 32 < 220
    assert json.loads(line)["images"][0] == {
        "key": "000000000000.jpg",
        "status": "done",
        "rows": 3,
        "size": 123456,
        "mtime_ns": 1700000000123456789,
        "sha256": "0" * 64,
    }
