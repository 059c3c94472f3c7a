"""Workers in Ray actors: the same rows as in one process, whoever dies, hangs, complains or is told to stop."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray_scenes
from command_server import SMALL
from invoking import draw_pictures, invoke, rows_of
from locations import REPOSITORY, SUPPORT
from ray_scenes import MARK, VARIABLES, Kill, Refuse, Short, Threads, Unready, Variables, Wait
from trivial_stages import Bench, check_whole, file_set, no_trick, outcomes, paint_folder, rows

from pseudoris_cli.errors import Interrupted, MissingDependency, UsageError

pytest.importorskip("ray")
DIED = "its worker died (killed, crashed, or its machine is gone)"


class Driver:
    """A process with a Ray of two workers. Its own Ray, as long as it lives."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.pid: int = self.pool.submit(os.getpid).result()

    def begin(self, action: Callable[..., Any], *arguments: Any) -> Future:
        return self.pool.submit(action, *arguments)

    def run(self, bench: Bench, stage: str = "masks", **how: Any) -> Any:
        return self.pool.submit(ray_scenes.run, bench, stage, **how).result()


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, f"driver of {os.getpid()}")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), str(REPOSITORY)]))
        made = Driver()
        yield made
        with suppress(ProcessLookupError):
            os.kill(made.pid, signal.SIGKILL)
        made.pool.shutdown()
        assert wait_for(lambda: not ray_scenes.marked(os.environ[MARK]), 30), ray_scenes.marked(os.environ[MARK])


@pytest.fixture(scope="module")
def whole(ram: Path) -> Bench:
    """Twelve images in three parts, done in one process."""
    bench = Bench(ram / "ray" / "whole", paint_folder(ram / "ray" / "images", 12))
    bench.masks()
    bench.captions()
    return bench


@pytest.fixture
def bench(whole: Bench, ram_path: Path) -> Bench:
    """The same images, nothing done yet."""
    return replace(whole, work=ram_path / "work")


def wait_for(condition: Callable[[], Any], seconds: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def failed(bench: Bench) -> dict[str, str | None]:
    return {key: image.error for key, image in outcomes(bench.work, "masks").items() if image.status == "failed"}


def test_rows_are_those_of_one_process(driver: Driver, whole: Bench, bench: Bench) -> None:
    for stage in ("masks", "captions"):
        summary, said = driver.run(bench, stage)
        assert (summary.parts, said) == (3, [])
        check_whole(bench.work, stage)
        assert rows(bench.work, stage) == rows(whole.work, stage)
    assert file_set(bench.work) == file_set(whole.work)


def test_a_killed_worker_loses_only_its_part(driver: Driver, whole: Bench, bench: Bench) -> None:
    bench.trick = Kill("006.png", bench.work.parent, times=1)
    _, said = driver.run(bench)
    assert said == [f"part 1 is run again: {DIED}"]
    check_whole(bench.work, "masks")
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert {row["generation"] for row in entries(bench)} == {0}


def entries(bench: Bench) -> list[dict[str, Any]]:
    manifest = bench.workspace.latest("masks").folder / "manifest-main.jsonl"
    return sorted((json.loads(line) for line in manifest.read_text().splitlines()), key=lambda entry: entry["part"])


def test_an_image_that_kills_its_worker_is_given_up(driver: Driver, whole: Bench, bench: Bench) -> None:
    bench.trick = Kill("006.png", bench.work.parent)
    _, said = driver.run(bench)
    assert said == [f"part 1 is run again: {DIED}"] * 2 + [f"006.png is given up: tried alone, {DIED}"]
    check_whole(bench.work, "masks")
    assert failed(bench) == {
        "005.png": "not an image of a known format",
        "006.png": "killed the process when it was tried alone",
    }
    assert rows(bench.work, "masks") == [row for row in rows(whole.work, "masks") if row["image_key"] != "006.png"]


@pytest.fixture
def deaths(bench: Bench, whole: Bench) -> Callable[[int], None]:
    """Let part 1 have died so many times before."""

    def died(times: int) -> None:
        folder = bench.work / whole.workspace.latest("masks").folder.relative_to(whole.work)
        folder.mkdir(parents=True)
        log = {"deaths": {"1": times}, "killers": {}, "working": [], "image": None}
        (folder / "running-main.json").write_text(json.dumps(log))

    return died


def test_a_part_that_dies_only_as_a_whole_is_run_image_by_image(
    driver: Driver, whole: Bench, bench: Bench, deaths: Callable[[int], None]
) -> None:
    deaths(4)
    driver.run(bench)
    assert [entry["notes"].get("one_by_one") for entry in entries(bench)] == [None, True, None]
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert "running-main.json" not in {path.name for path in bench.work.rglob("*")}


def test_a_worker_that_hangs_is_ended_and_reported(driver: Driver, bench: Bench, deaths: Callable[[int], None]) -> None:
    deaths(2)
    bench.trick = Wait("006.png", bench.work.parent)
    _, said = driver.run(bench, part_timeout=2)
    assert said == ["006.png is given up: tried alone, its worker took longer than source.part_timeout (2 s)"]
    check_whole(bench.work, "masks")
    assert set(failed(bench)) == {"005.png", "006.png"}


def test_errors_of_workers_keep_their_kind_and_message(driver: Driver, whole: Bench, bench: Bench) -> None:
    bench.trick = Refuse("006.png", bench.work.parent, times=1)
    with pytest.raises(UsageError, match=r"^mend this first$"):
        driver.run(bench)
    with pytest.raises(MissingDependency, match=r"^there is no checkpoint$"):
        driver.run(bench, kind=Unready)
    driver.run(bench)
    assert rows(bench.work, "masks") == rows(whole.work, "masks")


def test_a_worker_short_of_memory_halves_its_batches(driver: Driver, whole: Bench, bench: Bench) -> None:
    driver.run(bench, kind=Short)
    assert [entry["notes"]["out_of_memory"] for entry in entries(bench)] == [2, 1, 2]
    assert {entry["notes"]["device"] for entry in entries(bench)} == {"cpu"}
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert [outcome.status for outcome in outcomes(bench.work, "masks").values()] == [
        outcome.status for outcome in outcomes(whole.work, "masks").values()
    ]


def test_workers_have_as_many_threads_as_the_driver(driver: Driver, bench: Bench) -> None:
    bench.trick = Threads("006.png", bench.work.parent)
    driver.run(bench)
    assert (bench.work.parent / "threads").read_text() == os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_lets_the_parts_in_flight_end_and_a_second_does_not(
    driver: Driver, whole: Bench, bench: Bench, times: int
) -> None:
    bench.trick, bench.part_size = Wait(None, bench.work.parent), 2
    running = driver.begin(ray_scenes.run, bench, "masks")
    assert wait_for(lambda: (bench.work.parent / "000.png-0").exists(), 60)
    assert wait_for(lambda: (bench.work.parent / "002.png-0").exists(), 60)
    for _ in range(times):
        os.kill(driver.pid, signal.SIGTERM)
        time.sleep(1)
    if times == 1:
        (bench.work.parent / "go").touch()
    with pytest.raises(Interrupted):
        running.result(30 if times == 1 else 15)  # of its own it would end after 20 seconds
    assert [entry["part"] for entry in entries(bench)] == ([0, 1] if times == 1 else [])
    bench.trick = whole.trick
    bench.masks()
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert not [name for name in file_set(bench.work) if "running" in name], "nobody died"


def test_a_ray_that_is_there_can_be_joined(driver: Driver, whole: Bench, bench: Bench) -> None:
    where, secret = driver.begin(ray_scenes.address).result()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        bench.trick = Variables("006.png", bench.work.parent)
        summary = pool.submit(ray_scenes.run_at, bench, "masks", where, secret).result()
        bench.trick = no_trick
    seen = json.loads((bench.work.parent / "variables").read_text())
    assert VARIABLES.items() <= seen.items(), "what finds checkpoints and chooses kernels follows to every machine"
    assert summary.parts == 3
    assert rows(bench.work, "masks") == rows(whole.work, "masks")
    assert driver.run(bench, "captions")[0].parts == 3, "it goes on without them"


def test_a_lost_machine_loses_only_its_part(whole: Bench, bench: Bench, capfd: pytest.CaptureFixture) -> None:
    """Its raylet and worker get SIGKILL in the middle of a part; the one that is left does the rest."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        summary, said = pool.submit(ray_scenes.run_and_lose_a_node, bench, "masks").result()
    assert summary.parts == 3
    assert capfd.readouterr().out == "", "Ray has much to say about a lost machine, and says it on stdout"
    assert said in ([f"part 0 is run again: {DIED}"], [f"part 1 is run again: {DIED}"])
    assert {entry["generation"] for entry in entries(bench)} == {0}
    check_whole(bench.work, "masks")
    assert rows(bench.work, "masks") == rows(whole.work, "masks")


def test_nothing_is_left_of_ray_when_its_driver_is_killed(driver: Driver, whole: Bench, bench: Bench) -> None:
    bench.trick = Wait(None, bench.work.parent)
    running = driver.begin(ray_scenes.run, bench, "masks")
    assert wait_for(lambda: (bench.work.parent / "000.png-0").exists(), 60)
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        running.result(15)
    assert wait_for(lambda: not ray_scenes.marked(os.environ[MARK]), 30), ray_scenes.marked(os.environ[MARK])
    bench.trick = whole.trick
    bench.masks()
    check_whole(bench.work, "masks")
    assert rows(bench.work, "masks") == rows(whole.work, "masks")


def command(mark: str, *words: str | Path, **environment: str) -> subprocess.Popen:
    """The real command; its processes can be told by the mark."""
    return subprocess.Popen(
        [sys.executable, "-m", "pseudoris_cli", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, MARK: mark, **environment},
    )


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """An empty folder with a path so short that Ray can use it."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_signal_while_ray_starts(whole: Bench, tmp_path: Path, short_folder: Path) -> None:
    """A clean end, and neither processes nor files are left; nor those of a driver that was killed earlier."""
    (short_folder / "pseudoris-ray-killed").mkdir()
    (short_folder / "pseudoris-ray-killed" / "driver.lock").touch()
    mark = f"starting of {os.getpid()}"
    words = ("masks", "-q", "--images", whole.images, *SMALL, "--work", tmp_path / "work", "--workers", "2")
    starting = command(mark, *words, TMPDIR=str(short_folder))
    assert wait_for(lambda: any("gcs_server" in line for line in ray_scenes.marked(mark)), 60)
    starting.send_signal(signal.SIGTERM)
    _, said = starting.communicate(timeout=60)
    assert starting.returncode == 130, said
    assert said.splitlines()[-1].startswith("error: interrupted"), said
    assert len(said.splitlines()) == 2, said
    assert ray_scenes.marked(mark) == []
    assert not list(short_folder.glob("pseudoris-ray-*"))


@pytest.mark.parametrize(
    ("address", "says"), [("127.0.0.1:9", "no Ray cluster at"), ("ray://127.0.0.1:9", "Ray client")]
)
def test_a_wrong_address_is_told_at_once(address: str, says: str, whole: Bench, tmp_path: Path) -> None:
    words = ("masks", "-q", "--images", whole.images, *SMALL, "--work", tmp_path / "work", "--workers", "2")
    asking = command("asking", *words, "--ray-address", address)
    _, said = asking.communicate(timeout=60)
    assert (asking.returncode, len(said.splitlines())) == (2, 1), said
    assert says in said


DEMO_CAPTIONS = ["--set", "captions.model=demo", "--set", "captions.checkpoint=demo_coca"]


@pytest.mark.parametrize("captions", [[], DEMO_CAPTIONS], ids=["tiny", "demo captions"])
def test_the_real_stages_by_ray(tmp_path: Path, captions: list[str]) -> None:
    """All stages with tiny random networks or the demo's trained captioner, parts of the same images on the same machine:
    bitwise equal rows, a quiet terminal, and no process is left."""
    draw_pictures(tmp_path / "images", 3)
    words = ["run", "-q", "--images", tmp_path / "images", *SMALL, *captions, "--work"]
    alone = invoke(*words, tmp_path / "alone")
    assert alone.code == 0, alone.stderr
    mark = f"command of {os.getpid()}"
    running = command(mark, *words, tmp_path / "ray", "--workers", "2")
    told, complained = running.communicate(timeout=500)
    assert (running.returncode, complained) == (0, "")
    assert [line.split()[0] for line in told.splitlines()][:4] == ["masks", "captions", "scores", "filter"]
    assert wait_for(lambda: not ray_scenes.marked(mark), 30), ray_scenes.marked(
        mark
    )  # Ray ends its actors in its own time
    for stage in ("masks", "captions", "scores", "filter"):
        assert rows_of(tmp_path / "ray", stage) == rows_of(tmp_path / "alone", stage) != []
