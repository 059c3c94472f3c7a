"""Running and resuming: what is done stays, what changed is done again, what is new is added. Trivial stages, real spine."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from trivial_stages import Bench, check_whole, file_set, in_child, no_trick, outcomes, paint, paint_folder, rows

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.execution.tasks import Selection
from pseudoris_cli.storage.workspace import Workspace


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Ten images in three parts, one of them empty and one broken; nothing has run."""
    return Bench(ram_path / "work", paint_folder(ram_path / "images", 10))


def generations(bench: Bench, stage: str) -> list[int]:
    return [entry.generation for _, entry in sorted(bench.workspace.latest(stage).manifest().entries.items())]


def test_both_stages_answer_every_image(bench: Bench) -> None:
    masks, captions = bench.masks(), bench.captions()
    assert (masks.parts, masks.counts) == (3, {"done": 8, "empty": 1, "failed": 1})
    assert (captions.parts, captions.counts) == (3, {"done": 8, "empty": 2})
    check_whole(bench.work, "masks")
    check_whole(bench.work, "captions")
    found = outcomes(bench.work, "captions")
    assert found["005.png"].error == "masks: not an image of a known format"
    assert found["003.png"].error is None
    assert {row["image_key"] for row in rows(bench.work, "captions")} == {f"{n:03}.png" for n in range(10)} - {
        "003.png",
        "005.png",
    }


def test_a_second_run_does_nothing(bench: Bench) -> None:
    bench.masks()
    bench.captions()
    before = {name: (bench.work / name).read_bytes() for name in file_set(bench.work) if not name.endswith(".lock")}
    masks, captions = bench.masks(), bench.captions()
    assert masks.nothing_to_do
    assert captions.nothing_to_do
    assert masks.total_counts == {"done": 8, "empty": 1, "failed": 1, "gone": 0}
    assert before == {n: (bench.work / n).read_bytes() for n in file_set(bench.work) if not n.endswith(".lock")}


def test_new_images_make_new_parts_only(bench: Bench) -> None:
    bench.masks()
    bench.captions()
    paint(bench.images / "001a.png", 50)
    paint(bench.images / "sub" / "folder.png", 51)
    summary = bench.masks()
    assert (summary.parts, summary.counts) == (1, {"done": 2})
    assert bench.captions().counts == {"done": 2}
    check_whole(bench.work, "captions")
    assert generations(bench, "masks") == [0, 0, 0, 0]


def test_a_changed_image_is_done_again_and_so_is_what_was_made_of_it(bench: Bench) -> None:
    bench.masks()
    bench.captions()
    paint(bench.images / "004.png", 99)
    with pytest.raises(UsageError, match="1 image changed since the masks were made"):
        replace(bench, flavour=1).captions()
    assert bench.captions().nothing_to_do, "the captions there are still those of the masks there"
    assert bench.masks().parts == 1
    assert generations(bench, "masks") == [0, 1, 0]
    assert bench.captions().parts == 1
    assert generations(bench, "captions") == [0, 1, 0]
    fresh = Bench(bench.work.parent / "fresh", bench.images)
    fresh.masks()
    fresh.captions()
    assert rows(bench.work, "masks") == rows(fresh.work, "masks")
    assert rows(bench.work, "captions") == rows(fresh.work, "captions")
    assert len(list(bench.workspace.latest("masks").folder.glob("*.parquet"))) == 3


def test_a_touched_image_is_not_done_again(bench: Bench) -> None:
    bench.masks()
    for seconds in (0, 2_000_000_000, 4_000_000_000):  # the clock jumps, back and ahead
        os.utime(bench.images / "001.png", (seconds, seconds))
        assert bench.masks().nothing_to_do


def test_a_vanished_image_is_gone_and_comes_back(bench: Bench) -> None:
    vanishing = bench.images / "001.png"
    data = vanishing.read_bytes()
    bench.masks()
    shutil.rmtree(bench.work / "masks")
    vanishing.unlink()
    assert bench.masks().counts["gone"] == 1
    assert outcomes(bench.work, "masks")["001.png"].error == "the image is gone"
    assert bench.masks().nothing_to_do
    vanishing.write_bytes(data)
    assert bench.masks().counts == {"done": 3, "empty": 1}
    assert "gone" not in {image.status for image in outcomes(bench.work, "masks").values()}
    check_whole(bench.work, "masks")


def test_an_image_that_vanishes_or_changes_between_the_stages(bench: Bench) -> None:
    bench.masks()
    changed, vanished = bench.images / "008.png", bench.images / "009.png"
    vanished.unlink()

    def change(key: str, together: int) -> None:
        paint(changed, 77)

    bench.trick, bench.decode_ahead = change, 1
    summary = bench.captions()
    assert summary.counts == {"done": 6, "empty": 2, "failed": 1, "gone": 1}
    found = outcomes(bench.work, "captions")
    assert found["008.png"].error == "the image changed since its masks were made"
    assert found["009.png"].error == "the image is gone"
    bench.trick = no_trick
    assert bench.captions().nothing_to_do
    bench.masks()
    assert bench.captions().counts == {"done": 1, "empty": 1}, "its masks are gone with it"
    check_whole(bench.work, "captions")


def test_failed_images_are_tried_again_on_demand(bench: Bench) -> None:
    def stumble(key: str, together: int) -> None:
        if key == "008.png":
            raise ZeroDivisionError

    bench.trick = stumble
    bench.masks()
    bench.trick = no_trick
    assert bench.masks().nothing_to_do
    bench.selection = Selection(retry_failed=True)
    summary = bench.masks()
    assert (summary.parts, summary.counts) == (2, {"done": 5, "failed": 1}), "the parts of 005 and of 008"
    assert outcomes(bench.work, "masks")["008.png"].status == "done"
    check_whole(bench.work, "masks")


def test_retrying_leaves_alone_what_is_still_gone(bench: Bench) -> None:
    bench.masks()
    data = (bench.images / "009.png").read_bytes()
    (bench.images / "009.png").unlink()
    bench.captions()
    bench.selection = Selection(retry_failed=True)
    assert bench.captions().nothing_to_do
    (bench.images / "009.png").write_bytes(data)
    assert bench.captions().counts == {"done": 2}


def test_masks_made_anew_make_their_captions_pending(bench: Bench) -> None:
    bench.masks()
    bench.captions()
    manifest = bench.workspace.latest("masks").manifest()
    manifest.path_of(manifest.entries[1]).unlink()
    with pytest.raises(UsageError, match=r"masks is incomplete: 1 of 3 parts .* run `pseudoris masks` first"):
        bench.captions()
    assert bench.masks().parts == 1
    assert bench.captions().nothing_to_do, "the same bytes came out again"


def test_an_incomplete_upstream_is_refused_unless_allowed(bench: Bench) -> None:
    bench.selection = Selection(shard=(0, 2))
    bench.masks()
    bench.selection = Selection()
    with pytest.raises(UsageError, match="masks is incomplete: 1 of 3 parts"):
        bench.captions()
    bench.selection = Selection(allow_partial=True)
    summary = bench.captions()
    assert (summary.lacking, summary.parts) == (1, 2)
    bench.selection = Selection()
    bench.masks()
    assert bench.captions().parts == 1
    check_whole(bench.work, "captions")


def test_shards_whose_number_changes_between_runs(bench: Bench) -> None:
    whole = Bench(bench.work.parent / "whole", bench.images, part_size=1)
    whole.masks()
    sharded = replace(bench, part_size=1)
    for shard in [(0, 2), (1, 3), (2, 3), (0, 3), (1, 4), (1, 2)]:
        sharded.selection = Selection(shard=shard)
        sharded.masks()
    check_whole(bench.work, "masks")
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert replace(sharded, selection=Selection()).masks().nothing_to_do


def test_a_limit_is_lifted_later(bench: Bench) -> None:
    bench.limit = 5
    assert sum(bench.masks().counts.values()) == 5
    bench.limit = None
    assert sum(bench.masks().counts.values()) == 5
    check_whole(bench.work, "masks")


def test_another_version_lies_beside_the_first(bench: Bench) -> None:
    first = bench.masks().version
    other = replace(bench, flavour=1).masks().version
    assert first != other
    assert bench.workspace.current("masks") == other
    assert {artifact.version for artifact in bench.workspace.versions("masks")} == {first, other}
    assert bench.masks().version == first
    assert bench.workspace.current("masks") == first


def test_two_parts_that_fail_wholly_stop_the_run(ram_path: Path) -> None:
    images = ram_path / "images"
    images.mkdir()
    for number in range(9):
        (images / f"{number}.png").write_bytes(b"nothing")
    bench = Bench(ram_path / "work", images, part_size=2)
    with pytest.raises(
        EnvironmentStop, match=r"first 2 parts failed.*not an image of a known format\n.*--retry-failed"
    ):
        bench.masks()
    assert len(bench.workspace.latest("masks").manifest().entries) == 2
    bench.part_size = 2
    with pytest.raises(EnvironmentStop):
        bench.masks()
    assert bench.masks().parts == 1
    check_whole(bench.work, "masks")


def test_a_lost_device_stops_and_keeps_what_is_committed(bench: Bench) -> None:
    def lose(key: str, together: int) -> None:
        if key == "004.png":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    bench.trick = lose
    with pytest.raises(EnvironmentStop, match="the device stopped working"):
        bench.masks()
    assert len(bench.workspace.latest("masks").manifest().entries) == 1
    bench.trick = no_trick
    assert bench.masks().parts == 2


def test_an_error_of_one_image_takes_no_other_with_it(bench: Bench) -> None:
    def stumble(key: str, together: int) -> None:
        if key == "004.png":
            raise ZeroDivisionError("by zero\nand more")

    bench.trick = stumble
    assert bench.masks().counts == {"done": 7, "empty": 1, "failed": 2}
    assert outcomes(bench.work, "masks")["004.png"].error == "ZeroDivisionError: by zero"


def test_a_second_writer_is_told_who_is_first(bench: Bench) -> None:
    (bench.images.parent / "flag").touch()

    def wait(key: str, together: int) -> None:
        (bench.images.parent / "ready").touch()
        while (bench.images.parent / "flag").exists():
            time.sleep(0.01)

    first = os.fork()
    if not first:
        bench.trick = wait
        os._exit(in_child(bench.masks))
    while not (bench.images.parent / "ready").exists():
        time.sleep(0.01)
    with pytest.raises(EnvironmentStop, match=r"in use by pid \d+ on .*\(masks, main, since"):
        bench.masks()
    shard = replace(bench, selection=Selection(shard=(1, 3)))
    assert shard.masks().parts == 1, "another writer is free to work beside it"
    (bench.images.parent / "flag").unlink()
    assert os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) == 0
    check_whole(bench.work, "masks")
    assert Workspace(bench.work).latest("masks").manifest().entries[1].file.name.endswith("shard-1-of-3.parquet")


def test_overlapping_writers_do_no_part_twice(bench: Bench) -> None:
    """`main` and a shard at once: whoever commits first keeps the part, and nothing is doubled on disk."""
    bench.part_size = 1

    def slowly(key: str, together: int) -> None:
        time.sleep(0.01)

    bench.trick = slowly
    pids = []
    for selection in (Selection(), Selection(shard=(0, 2)), Selection(shard=(1, 3))):
        pid = os.fork()
        if not pid:
            bench.selection = selection
            os._exit(in_child(bench.masks))
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0, 0, 0]
    for selection in (Selection(shard=(0, 2)), Selection(shard=(1, 3)), Selection()):
        assert replace(bench, selection=selection).masks().nothing_to_do
    check_whole(bench.work, "masks")
