"""Bad days of the real command: damaged parts and manifests, clocks that jump, two writers, images that change or hang."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_server import Call, CommandServer, Done, Job
from kill_series import GIVEN_UP, Unbroken, committed, exported, words
from trivial_stages import check_whole, outcomes, paint, rows

from pseudoris_cli.storage.stage_table import ALWAYS as STAGES
from pseudoris_cli.storage.workspace import Workspace


@pytest.fixture(scope="module")
def unbroken(command_server: CommandServer, ram: Path) -> Unbroken:
    """Finished work directories, one of each stage."""
    return Unbroken.make(ram / "bad days", command_server, images=4)


@pytest.fixture
def case(unbroken: Unbroken) -> Path:
    """A finished run of all stages, to be harmed."""
    folder = unbroken.base / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(unbroken.base / "run", folder)
    return folder


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("stage", "damage"), [*((stage, flip) for stage in STAGES), ("masks", truncate), ("filter", Path.unlink)]
)
def test_verify_finds_a_damaged_part_and_run_redoes_it(
    command_server: CommandServer, unbroken: Unbroken, case: Path, stage: str, damage: object
) -> None:
    manifest = Workspace(case / "work").latest(stage).manifest()
    part = manifest.path_of(manifest.entries[1])
    damage(part)  # type: ignore[operator]
    verified = command_server.call(case, "status", "--work", "work", "--verify")
    assert verified.code == 1
    assert [line.split("\t")[:2] for line in verified.out.splitlines()] == [[stage, str(part.relative_to(case))]]
    assert command_server.call(case, *words("run")).code == 4
    assert command_server.call(case, "status", "--work", "work", "--verify").code == 0
    for path in case.rglob("*.damaged"):
        path.unlink()
    settled(unbroken, case)


def settled(unbroken: Unbroken, case: Path) -> None:
    """The rows and exports are those of the unbroken run; generations, and so names of files, may be higher."""
    for stage in STAGES:
        check_whole(case / "work", stage)
        assert rows(case / "work", stage) == rows(unbroken.base / "run" / "work", stage), stage
    assert exported(case) == exported(unbroken.base / "run")


@pytest.mark.parametrize(("stage", "cut"), [*((stage, 60) for stage in STAGES), ("masks", 1), ("captions", 100_000)])
def test_a_torn_manifest(command_server: CommandServer, unbroken: Unbroken, case: Path, stage: str, cut: int) -> None:
    path = Workspace(case / "work").latest(stage).folder / "manifest-main.jsonl"
    os.truncate(path, max(0, path.stat().st_size - cut))
    done = command_server.call(case, *words("run"))
    assert done.code == 4, done.err
    settled(unbroken, case)


@pytest.mark.parametrize("seconds", [0, 1, 4_000_000_000])
def test_clocks_that_jump_redo_nothing(
    command_server: CommandServer, unbroken: Unbroken, case: Path, seconds: int
) -> None:
    for path in [*unbroken.base.joinpath("images").iterdir(), *case.rglob("*")]:
        os.utime(path, (seconds, seconds))
    done = command_server.call(case, *words("run"))
    assert done.code == 4, done.err
    assert done.out.count("nothing to do") == len(STAGES)
    settled(unbroken, case)


def test_two_writers_at_once(command_server: CommandServer, unbroken: Unbroken, case: Path) -> None:
    """Whoever comes second is told who is first, or finds all done; together they leave one whole result."""
    shutil.rmtree(case / "work")
    both = command_server.run([Job(str(case), [Call(words("masks"))]), Job(str(case), [Call(words("masks"))])])
    codes = sorted(done.code for [done] in both)
    assert codes in ([1, 4], [4, 4])
    for [done] in both:
        assert done.code == 4 or re.search(r"is in use by pid \d+ on .*\(masks, main, since", done.err), done.err
    assert command_server.call(case, *words("run")).code == 4
    settled(unbroken, case)


def test_an_image_that_changes_or_vanishes_between_two_runs(
    command_server: CommandServer, case: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    for number in range(4):
        paint(images / f"{number}.png", number, (48, 36))
    run = ["run", "--images", str(images), *words("run")[1:3], *words("run")[5:]]
    shutil.rmtree(case / "work")
    assert command_server.call(case, *run).code == 0
    paint(images / "1.png", 50, (48, 36))
    (images / "2.png").unlink()
    again = command_server.call(case, *run)
    assert again.code == 0, again.err
    assert "masks" in again.out
    assert "nothing to do" not in again.out.splitlines()[0]
    found = outcomes(case / "work", "masks")
    assert found["1.png"].status == "done"
    for stage in STAGES:
        check_whole(case / "work", stage)


def freshly(unbroken: Unbroken, folder: Path) -> Path:
    """A folder for a run beside images of its own, equal to the unbroken run's; the place to call commands in."""
    shutil.copytree(unbroken.base / "images", folder / "images")
    (folder / "run").mkdir()
    return folder / "run"


def until_done(server: CommandServer, case: Path, *more: str) -> Done:
    """Run undisturbed until there is nothing left to do."""
    for _ in range(3):
        done = server.call(case, *words("run"), *more)
        assert done.code in (0, 4), done.err
        if done.out.count("nothing to do") == len(STAGES):
            return done
    raise AssertionError(done)


@pytest.mark.parametrize("stage", ["masks", "captions", "scores"])
def test_images_that_change_or_vanish_during_the_run(
    command_server: CommandServer, unbroken: Unbroken, tmp_path: Path, stage: str
) -> None:
    case = freshly(unbroken, tmp_path)
    done = command_server.call(case, *words("run"), mischief=f"change_images:{stage}")
    if done.code == 2:  # noticed where the next stage begins
        assert done.err.startswith("error: 1 image changed since the masks were made; run"), done.err
    else:
        assert done.code == 4, done
    assert outcomes(case / "work", stage)["0.png"].status == "done"
    until_done(command_server, case)
    other = tmp_path / "other"
    other.mkdir()
    until_done(command_server, other)
    for name in STAGES:
        check_whole(case / "work", name)
        found, wanted = (rows(folder / "work", name) for folder in (case, other))
        assert [row for row in found if row["image_key"] != "2.png"] == wanted, "what is gone keeps what was made of it"
    last = {key: image.status for key, image in outcomes(case / "work", "masks").items()}
    assert last.pop("2.png") in ("done", "gone")
    assert last == {"0.png": "done", "1.png": "done", "3.png": "failed"}


@pytest.mark.parametrize("seconds", [-40_000, 90_000_000])
def test_a_clock_that_jumps_during_the_run(
    command_server: CommandServer, unbroken: Unbroken, tmp_path: Path, seconds: int
) -> None:
    case = freshly(unbroken, tmp_path)
    done = command_server.call(case, *words("run"), mischief=f"turn_clocks:{seconds}")
    assert done.code == 4, done
    settled(unbroken, case)
    assert until_done(command_server, case)
    settled(unbroken, case)
    told = command_server.call(case, "status", "--work", "work")
    assert (told.code, told.err) == (0, "")


def test_a_file_server_that_never_answers(command_server: CommandServer, unbroken: Unbroken, tmp_path: Path) -> None:
    """Ended by the time limit of a part; on the third time the image is given up, and it heals."""
    case = freshly(unbroken, tmp_path)
    limited = [*words("run"), "--set", "source.part_timeout=3"]
    for _ in range(2):
        done = command_server.call(case, *limited, mischief="hang:1.png")
        assert done.code == 1, done
        assert re.search(r"error: part 1 took longer than source.part_timeout \(3 s\); stopping", done.err)
    done = command_server.call(case, *limited, mischief="hang:1.png")
    assert done.code == 1, done
    done = command_server.call(case, *limited, mischief="hang:1.png")
    assert done.code == 4, done
    assert {key: image.error for key, image in outcomes(case / "work", "masks").items() if image.status == "failed"} == {
        "1.png": f"{GIVEN_UP} (took longer than its time limit)", "3.png": "not an image of a known format"
    }  # fmt: skip
    assert command_server.call(case, *words("run"), "--retry-failed").code == 4
    settled(unbroken, case)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("pages", [0, 1, 2, 5])
def test_a_disk_that_fills_up_during_the_run(
    command_server: CommandServer, unbroken: Unbroken, small_disk: Callable[[str], Path], stage: str, pages: int
) -> None:
    case = freshly(unbroken, small_disk("size=8m,nr_inodes=100k"))
    done = command_server.call(case, *words("run"), mischief=f"fill_disk:{stage} {pages}")
    assert done.code == 1, done
    assert re.match(r"(.*\n)*error: the disk is full \(", done.err), done.err
    assert "Traceback" not in done.err
    kept = committed(case / "work")
    assert kept or (stage, pages) == ("masks", 0), "the first part was not listed yet"
    full = command_server.call(case, *words("run"))
    assert full.code == 1, full
    (case / "ballast").unlink()
    assert command_server.call(case, *words("run")).code == 4
    assert kept.items() <= committed(case / "work").items()
    settled(unbroken, case)


def test_a_read_only_work_directory_says_so(command_server: CommandServer, case: Path) -> None:
    if os.getuid():
        pytest.skip("only root can become somebody else")
    hidden = command_server.call(case, *words("run"), uid=65534)
    assert (hidden.code, "permission denied" in hidden.err.lower()) == (1, True), hidden.err
    assert "Traceback" not in hidden.err
    for folder in [case, *case.parents]:
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(folder.stat().st_mode | 0o005)
    done = command_server.call(case, *words("run"), uid=65534)
    assert done.code == 1, done.err
    assert re.match(r"error: cannot write in .*Permission denied", done.err), done.err
    assert "Traceback" not in done.err
