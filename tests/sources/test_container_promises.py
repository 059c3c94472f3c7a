"""Tars and Parquet files keep the promises of a folder: nothing lost or doubled by kills, changes seen, vanished files recorded."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch  # noqa: F401  # once here instead of in every forked child
from packed import KINDS, pack, pictures_in
from trivial_stages import (
    Bench,
    check_whole,
    file_set,
    in_child,
    kill_at,
    moments,
    outcomes,
    paint,
    paint_folder,
    recognised,
    rows,
    watch_steps,
)

from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.sources import registry
from pseudoris_cli.sources.containers import Containers
from pseudoris_cli.sources.registry import INDEX

PICTURES = 9


def loose(folder: Path, count: int = PICTURES) -> dict[str, bytes]:
    return pictures_in(paint_folder(folder / "loose", count))


def bench_of(folder: Path, kind: str, pictures: dict[str, bytes]) -> Bench:
    return Bench(folder / "work", pack(kind, pictures, folder / kind), opener=recognised)


def own_name(key: str) -> str:
    return key.rpartition("/")[2]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_folder_but_for_keys(kind: str, ram_path: Path) -> None:
    pictures = loose(ram_path)
    benches = [Bench(ram_path / "folder work", ram_path / "loose"), bench_of(ram_path, kind, pictures)]
    found = []
    for bench in benches:
        bench.masks()
        bench.captions()
        check_whole(bench.work, "captions")
        for stage in ("masks", "captions"):
            named = [{**row, "image_key": own_name(row["image_key"])} for row in rows(bench.work, stage)]
            found.append(
                [{name: v for name, v in row.items() if name not in ("image_id", "file_name")} for row in named]
            )
        found.append([(own_name(key), one.status, one.sha256) for key, one in outcomes(bench.work, "masks").items()])
    assert found[:3] == found[3:]
    assert {one.status for one in outcomes(benches[1].work, "masks").values()} == {"done", "empty", "failed"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_at_any_step_loses_and_leaves_nothing(kind: str, ram_path: Path) -> None:
    """The first steps are those of the indexes, two files, each followed by a line of the plan.

    Those of the parts are the same for every source (test_publish_steps.py); the first part's are among these.
    """
    whole = bench_of(ram_path, kind, loose(ram_path, 6))
    steps = moments(whole.masks)
    assert len(steps) >= 2 * (2 * 4 + 1 + 4 + 2 * 6)
    index = ["write_temporary", "sync_file", "publish", "sync_folder"]
    assert [step.removeprefix("before ") for step in steps[:20:2]] == 2 * [*index, "append_line"], (
        "and a part of the plan each"
    )
    expected, files = rows(whole.work, "masks"), file_set(whole.work)
    assert len([name for name in files if name.startswith(INDEX) and name.endswith(".json")]) == 2
    for number, step in enumerate(steps[: 2 * (2 * 4 + 3 + 4)]):
        bench = replace(whole, work=ram_path / f"work-{number}")

        def dying(bench: Bench = bench, number: int = number) -> None:
            watch_steps(kill_at(number))
            bench.masks()

        assert in_child(dying) == -signal.SIGKILL, step
        assert in_child(bench.masks) == 0, step
        check_whole(bench.work, "masks")
        assert rows(bench.work, "masks") == expected, step
        assert file_set(bench.work) == files, step
        shutil.rmtree(bench.work)


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_picture_is_made_again_and_the_others_stay(kind: str, ram_path: Path) -> None:
    pictures = loose(ram_path, 8)
    bench = bench_of(ram_path, kind, pictures)
    bench.masks()
    before = {row["image_key"]: row["rle_counts"] for row in rows(bench.work, "masks")}
    paint(ram_path / "loose" / "006.png", 77)
    pack(kind, pictures_in(ram_path / "loose"), bench.images)
    with pytest.raises(UsageError, match="1 image changed since the masks were made"):
        bench.captions()
    assert bench.masks().parts == 1
    after = {row["image_key"]: row["rle_counts"] for row in rows(bench.work, "masks")}
    assert {own_name(key) for key in after if after[key] != before[key]} == {"006.png"}
    bench.captions()
    check_whole(bench.work, "captions")
    assert bench.masks().nothing_to_do


@pytest.mark.parametrize("kind", KINDS)
def test_new_files_and_rewritten_ones(kind: str, ram_path: Path) -> None:
    """A file that got more pictures gives new ones, and those that it had stay; nothing is doubled."""
    pictures = loose(ram_path, 8)
    first = dict(list(pictures.items())[:6])
    bench = bench_of(ram_path, kind, first)
    bench.masks()
    generations = {
        entry.part: entry.generation for entry in bench.workspace.latest("masks").manifest().entries.values()
    }
    pack(kind, pictures, bench.images)
    bench.masks()
    check_whole(bench.work, "masks")
    assert sorted(own_name(key) for key in outcomes(bench.work, "masks")) == sorted(pictures)
    entries = bench.workspace.latest("masks").manifest().entries
    assert {part: entries[part].generation for part in generations} == generations


@pytest.mark.parametrize("kind", KINDS)
def test_a_vanished_file_is_recorded_and_comes_back(kind: str, ram_path: Path) -> None:
    bench = bench_of(ram_path, kind, loose(ram_path, 8))
    source = recognised(bench.images, bench.work / INDEX)
    bench.workspace.create()
    bench.workspace.plan().extend(source.images(), 4)
    first = sorted(
        path for path in bench.images.rglob("*") if path.suffix == (".tar" if kind == "webdataset" else ".parquet")
    )[0]
    first.rename(ram_path / "away")
    bench.masks()
    statuses = [one.status for one in outcomes(bench.work, "masks").values()]
    assert statuses[:4] == ["gone"] * 4
    assert "gone" not in statuses[4:]
    (ram_path / "away").rename(first)
    replace(bench, selection=Selection(retry_failed=True)).masks()
    assert "gone" not in [one.status for one in outcomes(bench.work, "masks").values()]


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_is_kept_checked_and_made_anew(kind: str, ram_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    images = pack(kind, loose(ram_path, 8), ram_path / kind)
    real = type(recognised(images, ram_path / "none")).make_index

    def noted(self: Containers, name: str) -> dict:
        made.append(name)
        return real(self, name)

    monkeypatch.setattr(type(recognised(images, ram_path / "none")), "make_index", noted)

    def listed() -> tuple[list[str], int]:
        made.clear()
        keys = [image.key for image in recognised(images, ram_path / "index").images()]
        return keys, len(made)

    keys, times = listed()
    assert times == 2
    assert listed() == (keys, 0)
    files = sorted((ram_path / "index").glob("*.json"))
    files[0].write_bytes(files[0].read_bytes()[:-9])
    assert listed() == (keys, 1)
    files[1].write_text(json.dumps(json.loads(files[1].read_text()) | {"format": 0}))
    assert listed() == (keys, 1)
    for path in images.rglob("*"):
        if path.suffix in (".tar", ".parquet"):
            os.utime(path, ns=(1, 1))
    assert listed() == (keys, 2)
    assert listed() == (keys, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_readers_need_no_index_and_write_none(kind: str, ram_path: Path) -> None:
    """Another process gets the source pickled; where the work directory has no index, it reads all the same."""
    pictures = loose(ram_path)
    source = recognised(pack(kind, pictures, ram_path / kind), ram_path / "index")
    again = pickle.loads(pickle.dumps(source))
    refs = list(recognised(ram_path / kind, ram_path / "other").images())
    assert {ref.name: again.read(ref.key) for ref in reversed(refs)} == pictures
    assert not (ram_path / "index").exists()
    assert {again.stamp(ref.key) is None for ref in refs} == {False}
    gone = [f"{refs[0].key}x", "00009.tar/0.png", "0", "", refs[0].key.rpartition("/")[0], "a.tar/../../etc/passwd"]
    for key in gone:
        assert again.stamp(key) is None
        with pytest.raises(FileNotFoundError):
            again.read(key)


@pytest.mark.parametrize("kind", KINDS)
def test_many_threads_read_the_right_pictures(kind: str, ram_path: Path) -> None:
    """More files at once than are held open."""
    from concurrent.futures import ThreadPoolExecutor

    pictures = loose(ram_path, 60)
    source = recognised(pack(kind, pictures, ram_path / kind, each=5), ram_path / "index")
    refs = list(source.images()) * 4
    with ThreadPoolExecutor(16) as pool:
        for ref, data in zip(
            refs[::7] + refs, pool.map(lambda ref: source.read(ref.key), refs[::7] + refs), strict=True
        ):
            assert data == pictures[ref.name or ""]


def test_work_directories_of_one_kind_refuse_another(ram_path: Path) -> None:
    from pseudoris_cli.storage.workspace import Workspace

    pictures = loose(ram_path)
    workspace = Workspace(ram_path / "work")
    registry.remember(workspace, registry.Wanted(pack("webdataset", pictures, ram_path / "t")))
    assert workspace.source() == {"kind": "webdataset", "root": str(ram_path / "t"), "options": {}, "image_root": None}
    workspace.plan().extend(registry.source_of(workspace).images(), 4)
    registry.remember(workspace, registry.Wanted(ram_path / "t"))
    with pytest.raises(UsageError, match="one work directory has one source"):
        registry.remember(workspace, registry.Wanted(pack("parquet", pictures, ram_path / "p")))
    with pytest.raises(UsageError, match="nothing to choose by that"):
        registry.describe(ram_path / "t", {"column": "image"}, None)
