"""What status, verify and prune say of a work directory, and that what they find is mended."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from trivial_stages import Bench, check_whole, file_set, in_child, paint, paint_folder, rows

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.storage import status
from pseudoris_cli.storage.locks import exclusive


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Ten images, three parts, both stages done."""
    bench = Bench(ram_path / "work", paint_folder(ram_path / "images", 10))
    bench.masks()
    bench.captions()
    return bench


def part(bench: Bench, stage: str, number: int) -> Path:
    manifest = bench.workspace.latest(stage).manifest()
    return manifest.path_of(manifest.entries[number])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
def test_damage_is_found_and_only_what_is_damaged_is_redone(bench: Bench, damage) -> None:  # type: ignore[no-untyped-def]
    wanted = {stage: rows(bench.work, stage) for stage in ("masks", "captions")}
    assert list(status.verify_parts(bench.workspace)) == []
    bad = [("masks", part(bench, "masks", 1)), ("captions", part(bench, "captions", 2))]
    for _, path in bad:
        damage(path)
    found = list(status.verify_parts(bench.workspace))
    assert [(stage, path) for stage, path, _ in found] == bad
    assert {verdict for _, _, verdict in found} == {"missing" if damage is Path.unlink else "damaged"}
    with pytest.raises(UsageError, match="masks is incomplete: 1 of 3 parts are missing, damaged"):
        bench.captions()
    assert bench.masks().parts == 1
    assert bench.captions().parts == 1
    assert wanted == {stage: rows(bench.work, stage) for stage in wanted}
    assert list(status.verify_parts(bench.workspace)) == []
    for path, _ in status.unreferenced(bench.workspace):
        status.remove_unreferenced(path)
    check_whole(bench.work, "captions")


def test_a_truncated_part_is_noticed_without_verify(bench: Bench) -> None:
    truncate(part(bench, "captions", 0))
    assert bench.captions().parts == 1


def test_a_flipped_bit_upstream_is_never_worked_on(bench: Bench) -> None:
    flip(part(bench, "masks", 0))
    with pytest.raises(EnvironmentStop, match=r"cannot be read .*manifest lists.*status --verify"):
        replace(bench, flavour=1).captions()


def test_states_count_images_parts_and_what_is_left(bench: Bench) -> None:
    paint(bench.images / "new.png", 1)
    bench.workspace.plan().extend([], 4)
    replace(bench, flavour=1, selection=Selection(shard=(0, 3))).masks()
    states = {(state.stage, state.current): state for state in status.version_states(bench.workspace)}
    old, new = states["masks", True], states["masks", False]
    assert (old.images, old.parts, old.parts_planned, old.pending) == (11, 3, 4, 1)
    assert (new.parts, new.pending) == (2, 6)
    assert old.counts == {"done": 8, "empty": 1, "failed": 1, "gone": 0}
    assert old.last_error == "not an image of a known format"
    assert old.rows == len(rows(bench.work, "captions")) == 16
    assert new.images_per_second
    assert new.seconds_left
    assert [(stage, image.key) for stage, image in status.failures(bench.workspace)] == [("masks", "005.png")]


def shift(start: float, parts: int, seconds: float) -> list[tuple[float, float, int]]:
    """One worker's parts of 32 images, back to back."""
    return [(start + (number + 1) * seconds, seconds, 32) for number in range(parts)]


@pytest.mark.parametrize(
    ("parts", "rate"),
    [
        (shift(0, 50, 10), 3.2),
        (shift(0, 1, 10), 3.2),
        (shift(0, 12, 10) + shift(9000, 12, 10), 3.2),  # a night between two runs
        (shift(9000, 12, 10) + shift(0, 12, 10), 3.2),  # a clock that was put back
        (shift(0, 30, 40) + shift(1200, 30, 10), 3.2),  # faster of late
        ([part for _ in range(64) for part in shift(0, 5, 60)], 64 * 32 / 60),  # in step
        ([part for worker in range(64) for part in shift(worker, 5, 60)], 64 * 32 / 60),  # one after the other
        (shift(0, 40, 10) + shift(3, 40, 10) + shift(7, 10, 40), 32 / 10 + 32 / 10 + 32 / 40),  # three shards, one slow
        ([], None),
        ([(5.0, 0.0, 32)], None),
    ],
)
def test_the_rate_counts_the_time_in_which_anybody_worked(
    parts: list[tuple[float, float, int]], rate: float | None
) -> None:
    assert status.images_per_second(sorted(parts)) == (rate and pytest.approx(rate, rel=0.02))


def test_garbage_is_what_nothing_refers_to(bench: Bench) -> None:
    assert list(status.unreferenced(bench.workspace)) == []
    old = bench.workspace.latest("masks").folder
    bench.flavour = 1
    bench.masks()
    assert list(status.unreferenced(bench.workspace)) == [], "captions still come from the old masks"
    bench.captions()
    found = [path for path, _ in status.unreferenced(bench.workspace)]
    assert old in found
    assert len(found) == 2
    for path in found:
        status.remove_unreferenced(path)
    check_whole(bench.work, "captions")
    assert list(status.unreferenced(bench.workspace)) == []


def test_what_a_run_is_writing_is_not_pruned(bench: Bench) -> None:
    folder = bench.workspace.latest("masks").folder
    stray = folder / "part-000000-g7-main.parquet"
    stray.write_bytes(b"x")
    with exclusive(folder / "manifest-main.lock", "masks, main"):
        assert in_child(lambda: status.remove_unreferenced(stray)) == 1
        assert stray.exists()
    status.remove_unreferenced(stray)
    assert stray.name not in "".join(file_set(bench.work))
    status.remove_unreferenced(part(bench, "masks", 0))
    assert part(bench, "masks", 0).exists(), "it was listed meanwhile"


def test_a_state_says_all_of_its_version(bench: Bench) -> None:
    masks, captions = status.version_states(bench.workspace)
    assert (masks.stage, masks.upstream, masks.current) == ("masks", None, True)
    assert (captions.stage, captions.upstream, captions.current) == ("captions", masks.version, True)
    for state in (masks, captions):
        manifest = bench.workspace.artifact(state.stage, state.version).manifest()
        entries = [entry for _, entry in sorted(manifest.entries.items())]
        assert state.bytes == sum(manifest.path_of(entry).stat().st_size for entry in entries)
        assert state.committed == max(entry.committed for entry in entries)
        assert state.notes == tuple(entry.notes for entry in entries)
        assert (state.pending, state.seconds_left) == (0, None)
        assert (state.parts, state.parts_planned, state.images) == (3, 3, 10)
    assert captions.last_error is None
    assert [(stage, image.key) for stage, image in status.failures(bench.workspace)] == [("masks", "005.png")]
    assert status.current_chain(bench.workspace) == {("masks", masks.version), ("captions", captions.version)}


def test_the_time_left_is_what_is_pending_at_the_rate_so_far(bench: Bench) -> None:
    replace(bench, flavour=1, selection=Selection(shard=(0, 3))).masks()
    replace(bench, flavour=2, selection=Selection(shard=(7, 9))).masks()
    found = {(state.parts, state.pending): state for state in status.version_states(bench.workspace)}
    some, none = found[1, 6], found[0, 10]
    assert some.images_per_second
    assert some.seconds_left == pytest.approx(6 / some.images_per_second)
    assert (none.images_per_second, none.seconds_left, none.committed, none.last_error) == (None, None, None, None)


def test_garbage_is_listed_with_its_reason(bench: Bench) -> None:
    folder = bench.workspace.latest("captions").folder
    stray, damaged = folder / "part-000007-g0-main.parquet", folder / "part-000000-g0-main.parquet.damaged"
    for path in (stray, damaged):
        path.write_bytes(b"x" * 7)
    (folder / "notes.txt").write_text("mine")
    abandoned = bench.workspace.root / "scores" / "0123456789ab"
    (abandoned / "deep").mkdir(parents=True)
    (abandoned / "deep" / "file").write_bytes(b"x" * 30)
    assert list(status.unreferenced(bench.workspace)) == [
        (damaged, "damaged"),
        (stray, "superseded or left by a crash"),
        (abandoned, "no version: it has no artifact.json"),
    ]
    assert [status.size_of(path) for path in (damaged, stray, abandoned)] == [7, 7, 30]
    for path, _ in list(status.unreferenced(bench.workspace)):
        status.remove_unreferenced(path)
    assert list(status.unreferenced(bench.workspace)) == []
    assert (folder / "notes.txt").exists()
