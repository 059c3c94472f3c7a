"""Images that kill the process, and parts that hang: found, given up, and nothing else is lost."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from deadly_images import FailOn, KillOn
from trivial_stages import Bench, check_whole, file_set, in_child, no_trick, outcomes, paint, paint_folder, rows

from pseudoris_cli.errors import UsageError
from pseudoris_cli.execution import runner
from pseudoris_cli.execution.crash_log import CrashLog
from pseudoris_cli.execution.death_causes import memory_ran_out_since
from pseudoris_cli.execution.tasks import Selection


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Twelve images in three parts."""
    return Bench(ram_path / "work", paint_folder(ram_path / "images", 12))


@pytest.mark.parametrize("stage", ["masks", "captions"])
def test_the_third_death_gives_the_image_up(bench: Bench, stage: str) -> None:
    if stage == "captions":
        bench.masks()
    bench.trick = KillOn("006.png")
    run = getattr(bench, stage)
    assert [in_child(run) for _ in range(3)] == [-signal.SIGKILL] * 3
    assert in_child(run) == 0
    check_whole(bench.work, stage)
    victim = outcomes(bench.work, stage)["006.png"]
    assert (victim.status, victim.error) == (
        "failed",
        "killed the process when it was tried alone (killed from outside)",
    )
    clean = Bench(bench.work.parent / "without", bench.images)
    if stage == "masks":
        clean.trick = FailOn("006.png")
    clean.masks()
    clean.trick = FailOn("006.png")
    if stage == "captions":
        clean.captions()
    assert rows(bench.work, stage) == rows(clean.work, stage)
    assert file_set(bench.work) == file_set(clean.work), "no crash log is left"


def test_an_image_given_up_is_tried_again_when_it_changes(bench: Bench) -> None:
    bench.trick = KillOn("007.png")
    assert [in_child(bench.masks) for _ in range(4)][-1] == 0
    assert outcomes(bench.work, "masks")["007.png"].status == "failed"
    bench.trick = no_trick
    paint(bench.images / "007.png", 71)
    assert bench.masks().parts == 1
    assert outcomes(bench.work, "masks")["007.png"].status == "done"


def test_every_later_run_tries_an_image_that_was_given_up_once_more(bench: Bench, tmp_path: Path) -> None:
    """In a process of its own, after everything else: where it kills again nothing is lost, and where it lives it is done."""
    reason = tmp_path / "reason to die"
    reason.touch()
    bench.trick = KillOn("006.png", while_there=reason)
    assert [in_child(bench.masks) for _ in range(4)] == [-signal.SIGKILL] * 3 + [0]
    before = bench.workspace.latest("masks").manifest().entries[1]
    paint(bench.images / "new.png", 99)
    for parts in (1, 0):
        assert bench.masks().parts == parts, "the new image is done, and the run lives on"
        assert bench.workspace.latest("masks").manifest().entries[1] == before
        assert outcomes(bench.work, "masks")["006.png"].status == "failed"
    reason.unlink()
    assert bench.masks().parts == 1
    assert outcomes(bench.work, "masks")["006.png"].status == "done"
    assert bench.masks().nothing_to_do
    check_whole(bench.work, "masks")
    clean = Bench(bench.work.parent / "clean", bench.images)
    clean.masks()
    assert sorted(map(str, rows(bench.work, "masks"))) == sorted(map(str, rows(clean.work, "masks")))
    assert {path for path in file_set(bench.work) if "running" in path} == set()


def test_on_demand_it_is_tried_in_this_process(bench: Bench) -> None:
    bench.trick = KillOn("006.png")
    assert [in_child(bench.masks) for _ in range(4)][-1] == 0
    bench.trick, bench.selection = no_trick, Selection(retry_failed=True)
    bench.masks()
    assert outcomes(bench.work, "masks")["006.png"].status == "done"


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "killed from outside"), (signal.SIGSEGV, "crash"), (signal.SIGABRT, "crash")]
)
def test_crashes_are_told_from_signals_of_others(bench: Bench, number: int, cause: str) -> None:
    bench.trick = KillOn("006.png", number)
    assert [in_child(bench.masks) for _ in range(4)] == [-number] * 3 + [0]
    assert outcomes(bench.work, "masks")["006.png"].error == f"killed the process when it was tried alone ({cause})"
    assert not list(bench.work.rglob("running-*"))


def test_memory_that_ran_out_is_told_where_the_kernel_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = iter([3, 3, 4, 4, 4])
    monkeypatch.setattr("pseudoris_cli.execution.death_causes.memory_kills", lambda: {"boot": "b", "kills": 4})
    monkeypatch.setattr("pseudoris_cli.execution.crash_log.memory_kills", lambda: {"boot": "b", "kills": next(kills)})
    log = CrashLog(tmp_path, "main", [0])
    log.begin(0)
    log.isolate("a.png", 0)
    log = CrashLog(tmp_path, "main", [0])  # the process died meanwhile
    assert log.poison_images(0) == {"a.png": "killed the process when it was tried alone (out of memory)"}
    log.close()
    assert memory_ran_out_since({"boot": "another", "kills": 0}) is False
    assert memory_ran_out_since({}) is False


def test_two_deaths_from_outside_cost_nobody_anything(bench: Bench) -> None:
    """Pre-empted twice in the same part: its images are tried alone first, all live, and the rows are the usual ones."""
    bench.trick = KillOn("006.png")
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
    assert [entries[part].notes.get("one_by_one") for part in range(3)] == [None, True, None]
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


@pytest.mark.parametrize("was_on", [True, False])
def test_the_fault_handler_is_left_as_it_was(tmp_path: Path, was_on: bool) -> None:
    before = faulthandler.is_enabled()
    faulthandler.enable() if was_on else faulthandler.disable()
    try:
        log = CrashLog(tmp_path, "main", [0])
        log.begin(0)
        assert faulthandler.is_enabled()
        log.close()
        assert faulthandler.is_enabled() == was_on
    finally:
        faulthandler.enable() if before else faulthandler.disable()


def given_up(bench: Bench) -> Bench:
    """The image 006.png of the second part was given up on another kind of device; nothing is wrong with it any more."""
    bench.trick = KillOn("006.png")
    assert [in_child(bench.masks) for _ in range(4)][-1] == 0
    bench.trick = no_trick
    return bench


def test_an_image_that_lives_again_does_not_mix_devices(bench: Bench) -> None:
    manifest = given_up(bench).workspace.latest("masks").folder / "manifest-main.jsonl"
    manifest.write_text(manifest.read_text().replace('"device":"cpu"', '"device":"cuda"'))
    with pytest.raises(UsageError, match="were made on cuda, this run works on cpu"):
        bench.masks()
    assert outcomes(bench.work, "masks")["006.png"].status == "failed"
    replace(bench, selection=Selection(mix_devices=True)).masks()
    assert outcomes(bench.work, "masks")["006.png"].status == "done"


def test_an_image_that_lives_again_is_done_once_by_many_writers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one run tries it, another one finishes the part: the first leaves that alone."""
    given_up(bench)

    def meanwhile(*_: object) -> None:
        monkeypatch.setattr(runner, "try_alone", lambda *_: None)
        assert replace(bench, selection=Selection(shard=(0, 1))).masks().parts == 1

    monkeypatch.setattr(runner, "try_alone", meanwhile)
    assert bench.masks().parts == 0
    assert bench.workspace.latest("masks").manifest().entries[1].generation == 1
    assert outcomes(bench.work, "masks")["006.png"].status == "done"
