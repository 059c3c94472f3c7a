"""Images that kill the process, and parts that hang: found, given up, and nothing else is lost."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from trivial_stages import Bench, Trick, check_whole, file_set, in_child, no_trick, outcomes, paint, paint_folder, rows

from pseudoris_cli.execution.crash_log import CrashLog
from pseudoris_cli.execution.tasks import Selection


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Twelve images in three parts."""
    return Bench(ram_path / "work", paint_folder(ram_path / "images", 12))


def fail_on(victim: str) -> Trick:
    def fail(key: str, together: int) -> None:
        if key == victim:
            raise ZeroDivisionError

    return fail


def kill_on(victim: str) -> Trick:
    def kill(key: str, together: int) -> None:
        if key == victim:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


@pytest.mark.parametrize("stage", ["masks", "captions"])
def test_the_third_death_gives_the_image_up(bench: Bench, stage: str) -> None:
    if stage == "captions":
        bench.masks()
    bench.trick = kill_on("006.png")
    run = getattr(bench, stage)
    assert [in_child(run) for _ in range(3)] == [-signal.SIGKILL] * 3
    assert in_child(run) == 0
    check_whole(bench.work, stage)
    victim = outcomes(bench.work, stage)["006.png"]
    assert (victim.status, victim.error) == ("failed", "killed the process when it was tried alone")
    clean = Bench(bench.work.parent / "without", bench.images)
    if stage == "masks":
        clean.trick = fail_on("006.png")
    clean.masks()
    clean.trick = fail_on("006.png")
    if stage == "captions":
        clean.captions()
    assert rows(bench.work, stage) == rows(clean.work, stage)
    assert file_set(bench.work) == file_set(clean.work), "no crash log is left"


def test_an_image_given_up_is_tried_again_on_demand_or_when_it_changes(bench: Bench) -> None:
    bench.trick = kill_on("006.png")
    assert [in_child(bench.masks) for _ in range(4)][-1] == 0
    assert bench.masks().nothing_to_do
    bench.trick = no_trick
    bench.selection = Selection(retry_failed=True)
    bench.masks()
    assert outcomes(bench.work, "masks")["006.png"].status == "done"
    bench.selection = Selection()
    bench.trick = kill_on("007.png")
    paint(bench.images / "007.png", 70)
    assert [in_child(bench.masks) for _ in range(4)][-1] == 0
    assert outcomes(bench.work, "masks")["007.png"].status == "failed"
    bench.trick = no_trick
    paint(bench.images / "007.png", 71)
    assert bench.masks().parts == 1
    assert outcomes(bench.work, "masks")["007.png"].status == "done"


def test_two_deaths_from_outside_cost_nobody_anything(bench: Bench) -> None:
    """Pre-empted twice in the same part: its images are tried alone first, all live, and the rows are the usual ones."""
    bench.trick = kill_on("006.png")
    assert [in_child(bench.masks) for _ in range(2)] == [-signal.SIGKILL] * 2
    tried: list[tuple[str, int]] = []
    bench.trick = lambda key, together: tried.append((key, together))
    summary = bench.masks()
    assert summary.total_counts["done"] == 10
    assert ("006.png", 1) in tried
    assert ("006.png", 4) in tried
    clean = Bench(bench.work.parent / "clean", bench.images)
    clean.masks()
    assert rows(bench.work, "masks") == rows(clean.work, "masks")
    assert file_set(bench.work) == file_set(clean.work)


def test_a_part_that_dies_only_as_a_whole_is_run_image_by_image(bench: Bench) -> None:
    def too_many(key: str, together: int) -> None:
        if key == "006.png" and together > 1:
            os.kill(os.getpid(), signal.SIGKILL)

    bench.trick = too_many
    assert [in_child(bench.masks) for _ in range(5)] == [-signal.SIGKILL] * 4 + [0]
    check_whole(bench.work, "masks")
    entries = bench.workspace.latest("masks").manifest().entries
    assert [entries[part].notes for part in range(3)] == [{}, {"one_by_one": True}, {}]
    clean = Bench(bench.work.parent / "clean", bench.images)
    clean.masks()
    assert rows(bench.work, "masks") == rows(clean.work, "masks")


def test_a_part_that_hangs_ends_the_process_and_its_image_is_found(bench: Bench, capfd: pytest.CaptureFixture) -> None:
    def hang(key: str, together: int) -> None:
        if key == "006.png":
            time.sleep(600)

    bench.trick, bench.part_timeout = hang, 0.4
    assert [in_child(bench.masks) for _ in range(4)] == [1, 1, 1, 0]
    assert "part 1 took longer than source.part_timeout (0.4 s)" in capfd.readouterr().err
    check_whole(bench.work, "masks")
    assert [key for key, image in outcomes(bench.work, "masks").items() if image.status == "failed"] == [
        "005.png",
        "006.png",
    ]


def test_an_orderly_end_counts_as_no_death(tmp_path: Path) -> None:
    for _ in range(5):
        log = CrashLog(tmp_path, "main", [0, 1])
        log.begin(0)
        assert not log.is_quarantined(0)
        log.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_remembered_of_parts_that_are_done_is_dropped(tmp_path: Path) -> None:
    for _ in range(2):
        log = CrashLog(tmp_path, "main", [0, 1])
        log.begin(0)
        log.begin(1)
    log = CrashLog(tmp_path, "main", [1])
    assert (log.is_quarantined(0), log.is_quarantined(1)) == (False, True)
    log.close()
    assert CrashLog(tmp_path, "main", [1]).is_quarantined(1)
    CrashLog(tmp_path, "main", []).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"deaths": 3}'])
def test_a_damaged_crash_log_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "running-main.json").write_text(text)
    log = CrashLog(tmp_path, "main", [0])
    assert not log.is_quarantined(0)
    log.close()
    assert list(tmp_path.iterdir()) == []
