"""Signals, full disks and forbidden folders: the run stops with a message, and what is committed is kept."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from command_server import SMALL
from invoking import invoke
from trivial_stages import (
    Bench,
    Trick,
    check_whole,
    file_set,
    in_child,
    kill_at,
    moments,
    no_trick,
    outcomes,
    paint_folder,
    rows,
    watch_steps,
)

from pseudoris_cli.errors import EnvironmentStop, Interrupted
from pseudoris_cli.execution.signals import OnWorkers, graceful_stop

NOBODY = 65534


@pytest.fixture
def bench(ram_path: Path) -> Bench:
    """Twelve images in three parts."""
    return Bench(ram_path / "work", paint_folder(ram_path / "images", 12))


@pytest.fixture
def clean(ram_path: Path, bench: Bench) -> Bench:
    """The same, run through."""
    other = Bench(ram_path / "clean", bench.images)
    other.masks()
    return other


def signals_on(victim: str, *signs: int) -> Trick:
    def send(key: str, together: int) -> None:
        if key == victim:
            for sign in signs:
                os.kill(os.getpid(), sign)

    return send


def check_first_part_is_kept_and_the_rest_follows(bench: Bench, clean: Bench) -> None:
    """A stop during the second part left the first and nothing else; the next run ends as if there had been none."""
    assert sorted(bench.workspace.latest("masks").manifest().entries) == [0]
    assert not [name for name in file_set(bench.work) if "tmp" in name or "running" in name]
    bench.trick = no_trick
    assert bench.masks().parts == 2
    assert rows(bench.work, "masks") == rows(clean.work, "masks")
    assert file_set(bench.work) == file_set(clean.work)


# --- signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_finishes_the_part_in_flight(
    bench: Bench, clean: Bench, sign: int, capfd: pytest.CaptureFixture
) -> None:
    bench.trick = signals_on("004.png", sign)
    assert in_child(bench.masks) == 130
    said = f"{signal.Signals(sign).name}: finishing part 1 (0 of its 4 images are done, about 1 s more) (at most 20 s)"
    assert said in capfd.readouterr().err
    assert sorted(bench.workspace.latest("masks").manifest().entries) == [0, 1]
    bench.trick = no_trick
    assert bench.masks().parts == 1
    assert rows(bench.work, "masks") == rows(clean.work, "masks")
    assert file_set(bench.work) == file_set(clean.work)


def test_a_part_that_cannot_end_in_time_is_left_at_the_first_signal(
    bench: Bench, clean: Bench, capfd: pytest.CaptureFixture
) -> None:
    """A part of images that take ten seconds each: 32 of them would take minutes. Nothing else is lost."""

    def slow(key: str, together: int) -> None:
        if key == "006.png":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        elif key > "003.png":
            time.sleep(0.2)

    bench.trick = slow
    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pseudoris_cli.execution.signals.GRACE_SECONDS", 0.2)
        assert in_child(bench.masks) == 130
    assert time.monotonic() - started < 20
    said = capfd.readouterr().err
    assert (
        "SIGINT: stopping at once, as part 1 (2 of its 4 images are done, about 1 s more) cannot end within 0.2 s"
        in said
    )
    check_first_part_is_kept_and_the_rest_follows(bench, clean)


def test_a_part_of_which_nothing_is_known_yet_is_not_waited_for(bench: Bench) -> None:
    bench.trick = signals_on("000.png", signal.SIGINT)
    assert in_child(bench.masks) == 130
    assert not bench.workspace.versions("masks")[0].manifest().entries


def stop_with_nothing_in_flight() -> None:
    with graceful_stop():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)


def test_what_nobody_would_lose_anything_by_stops_at_once() -> None:
    """While networks are loaded, say, or files listed."""
    started = time.monotonic()
    with pytest.raises(Interrupted):
        stop_with_nothing_in_flight()
    assert time.monotonic() - started < 20


def test_the_second_signal_stops_at_once_and_leaves_nothing(bench: Bench, clean: Bench) -> None:
    bench.trick = signals_on("004.png", signal.SIGINT, signal.SIGTERM)
    assert in_child(bench.masks) == 130
    check_first_part_is_kept_and_the_rest_follows(bench, clean)


def test_a_signal_in_the_last_part_still_ends_well(bench: Bench) -> None:
    bench.trick = signals_on("011.png", signal.SIGTERM)
    assert in_child(bench.masks) == 0
    check_whole(bench.work, "masks")


def test_two_signals_at_any_step_of_a_commit_break_nothing(bench: Bench, clean: Bench) -> None:
    """A commit is shielded: the part is there whole, or not at all and without a file."""
    steps = moments(Bench(bench.work.parent / "rehearsal", bench.images).masks)
    for number in range(0, len(steps), 3):
        work = bench.work.parent / f"work-{number}"
        twice = replace(bench, work=work)

        def stopping(twice: Bench = twice, number: int = number) -> None:
            first, second = kill_at(number, signal.SIGTERM), kill_at(number, signal.SIGINT)
            watch_steps(lambda step, after: (first(step, after), second(step, after))[0])
            twice.masks()

        assert in_child(stopping) == 130, steps[number]
        assert not [name for name in file_set(work) if "tmp" in name or "running" in name], steps[number]
        if (work / "masks" / "current").exists():
            manifest = twice.workspace.latest("masks").manifest()
            assert {path.name for path in manifest.folder.glob("part-*")} == {
                e.file.name for e in manifest.entries.values()
            }
        twice.masks()
        assert rows(work, "masks") == rows(clean.work, "masks"), steps[number]
        assert file_set(work) == file_set(clean.work), steps[number]


def stop_twice() -> None:
    with graceful_stop() as stopper:
        stopper.in_flight = OnWorkers()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopper.requested
        with suppress(Exception):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


def test_nobody_can_swallow_the_second_signal() -> None:
    """Code that goes on after any Exception must not go on after a signal."""
    with pytest.raises(Interrupted):
        stop_twice()


def stop_once_and_linger() -> None:
    with graceful_stop() as stopper:
        stopper.in_flight = OnWorkers()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)


def test_the_grace_period_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pseudoris_cli.execution.signals.GRACE_SECONDS", 1)
    started = time.monotonic()
    with pytest.raises(Interrupted):
        stop_once_and_linger()
    assert time.monotonic() - started < 20


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]
    with graceful_stop():
        assert signal.getsignal(signal.SIGTERM) != before[1]
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)]


def test_a_signal_that_was_swallowed_before_the_work_began_stops_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code that calls back into Python prints what a handler raises, and goes on."""

    def swallow(*_: object) -> None:
        with suppress(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    monkeypatch.setattr("pseudoris_cli.cli.session.configure_logging", swallow)
    paint_folder(tmp_path / "images", 1)
    words = ["masks", "--images", tmp_path / "images", "--work", tmp_path / "work", *SMALL]
    done = invoke(*words)
    assert (done.code, done.stderr) == (130, "error: interrupted\n")
    monkeypatch.undo()
    assert invoke(*words).code == 0, "and not the next one"


# --- disks ----------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_anywhere(bench: Bench, clean: Bench, small_disk: Callable[[str], Path]) -> None:
    """Room for ever fewer pages: each run stops with exit 1 and a plain message, and goes on once there is room."""
    stops = 0
    for pages in range(1, 24, 2):
        disk = small_disk("size=1m,nr_inodes=100k")
        filled = replace(bench, work=disk / "work")
        usage = os.statvfs(disk)
        (disk / "ballast").write_bytes(bytes((usage.f_bavail - pages) * usage.f_frsize))
        code = in_child(filled.masks)
        assert code in (0, 1)
        stops += code
        assert code == 0 or pages < 20
        (disk / "ballast").unlink()
        filled.masks()
        check_whole(filled.work, "masks")
        assert rows(filled.work, "masks") == rows(clean.work, "masks"), pages
        assert file_set(filled.work) == file_set(clean.work), pages
        shutil.rmtree(disk / "work")
    assert stops >= 6


def test_a_full_disk_is_named(bench: Bench, small_disk: Callable[[str], Path], capfd: pytest.CaptureFixture) -> None:
    disk = small_disk("size=1m")
    bench.work = disk / "work"

    def fill(key: str, together: int) -> None:
        usage = os.statvfs(disk)
        if key == "006.png":
            (disk / "ballast").write_bytes(bytes(usage.f_bavail * usage.f_frsize))

    bench.trick = fill
    assert in_child(bench.masks) == 1
    assert f"the disk is full ({bench.work / 'masks'}" in capfd.readouterr().err
    assert sorted(bench.workspace.latest("masks").manifest().entries) == [0]
    assert not [name for name in file_set(bench.work) if "tmp" in name]


def test_a_disk_that_becomes_read_only(bench: Bench, clean: Bench, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=4m,rw")
    bench.work = disk / "work"
    bench.limit = 4
    bench.masks()
    small_disk("ro")
    bench.limit = None
    with pytest.raises(
        EnvironmentStop, match=r"Read-only file system;.*: it is mounted read-only\. Choose another folder"
    ):
        bench.masks()
    with pytest.raises(EnvironmentStop, match="Read-only"):
        bench.captions()
    small_disk("rw")
    bench.masks()
    assert rows(bench.work, "masks") == rows(clean.work, "masks")


# --- permissions ----------------------------------------------------------------------------------------------------


@pytest.fixture
def open_bench(tmp_path: Path) -> Bench:
    """A bench that user nobody can work on."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    bench = Bench(tmp_path / "work", paint_folder(tmp_path / "images", 12))
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    tmp_path.chmod(0o777)
    return bench


def test_a_permission_lost_midway(open_bench: Bench, capfd: pytest.CaptureFixture) -> None:
    bench = open_bench

    def forbid(key: str, together: int) -> None:
        if key == "006.png":
            for folder in bench.work.rglob("masks/*/"):
                folder.chmod(0o500)

    bench.trick = forbid
    assert in_child(bench.masks, user=NOBODY) == 1
    assert "Permission denied; committed work is kept. Check its permissions" in capfd.readouterr().err
    assert sorted(bench.workspace.latest("masks").manifest().entries) == [0]
    for folder in bench.work.rglob("masks/*/"):
        folder.chmod(0o700)
    bench.trick = no_trick
    assert in_child(bench.masks, user=NOBODY) == 0
    check_whole(bench.work, "masks")


def test_a_work_directory_of_somebody_else(open_bench: Bench, capfd: pytest.CaptureFixture) -> None:
    open_bench.masks()
    assert in_child(open_bench.masks, user=NOBODY) == 1
    assert "cannot write in" in capfd.readouterr().err


def test_an_image_that_may_not_be_read(open_bench: Bench) -> None:
    bench = open_bench
    (bench.images / "002.png").chmod(0)
    assert in_child(bench.masks, user=NOBODY) == 0
    found = outcomes(bench.work, "masks")["002.png"]
    assert (found.status, found.error) == ("failed", "cannot be read: Permission denied")
