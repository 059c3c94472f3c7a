"""The command as daemons, containers and pipes start it: closed, full and narrow streams, no home, no user, an early Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)
COMMAND = [sys.executable, "-m", "pseudoris_cli"]
NAMES = ("café.jpg", "图.jpg", "plain.jpg")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, repository_root: Path) -> Path:
    """A work directory with three failed images of awkward names."""
    folder = tmp_path_factory.mktemp("streams")
    (folder / "pics").mkdir()
    for name in NAMES:
        (folder / "pics" / name).write_text("no image")
    flags = ["--images", folder / "pics", "--work", folder / "work", "--device", "cpu", "-q"]
    done = run("masks", *flags, "--config", repository_root / "configs" / "random.yaml")
    assert done.returncode == 4, done.stderr
    return folder / "work"


@pytest.fixture(scope="module")
def repository_root() -> Path:
    return Path(__file__).resolve().parents[2]


def run(*arguments: Any, shell: str = "", **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run the command, through a shell that redirects (`shell`), with variables set or (None) removed."""
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])} | environment
    variables = {name: value for name, value in variables.items() if value is not None}
    command = [*COMMAND, *map(str, arguments)]
    if shell:
        command = ["bash", "-c", f'"$@" {shell}', "bash", *command]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=200, errors="replace")


@pytest.mark.parametrize(
    "what", [("status",), ("status", "--json"), ("status", "--failed"), ("config", "show"), ("--help",)]
)
def test_a_result_that_cannot_be_written_is_an_error_without_traceback(work: Path, what: tuple[str, ...]) -> None:
    flags = ("--work", work) if what[0] == "status" else ()
    done = run(*what, *flags, shell=">/dev/full")
    assert done.returncode == 1
    assert done.stderr == (
        "error: the result cannot be written to stdout: No space left on device; committed work is kept\n"
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-", "2>/dev/full", ">&- 2>/dev/full"])
def test_closed_streams_and_a_full_log_stop_nothing(work: Path, closed: str, tmp_path: Path) -> None:
    done = run("status", "--work", work, "--json", shell=closed)
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    if ">&-" not in closed.replace("2>&-", ""):
        assert json.loads(done.stdout)["work"] == str(work)


def test_no_file_takes_the_number_of_a_closed_stream() -> None:
    """A print from compiled code into descriptor 1 would else end up in a part."""
    code = (
        "import os; from pseudoris_cli.cli.surroundings import prepare; prepare(); f = open(os.devnull)\n"
        "raise SystemExit(0 if f.fileno() > 2 else 1)"
    )
    command = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c"]
    assert subprocess.run([*command, code]).returncode == 0
    assert subprocess.run([*command, code.replace("prepare();", "")]).returncode == 1


def test_a_reader_that_goes_away_is_no_error_to_tell(work: Path) -> None:
    done = run("config", "show", shell="| head -c 1 >/dev/null; echo ${PIPESTATUS[0]}")
    assert "Traceback" not in done.stderr
    assert "error" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16"])
def test_json_is_ascii_and_tables_are_printed_in_every_encoding(work: Path, encoding: str) -> None:
    variables = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for flag in ("--failed", "--failed --json", ""):
        command = [*COMMAND, "status", "--work", str(work), *flag.split()]
        done = subprocess.run(command, capture_output=True, env=variables)
        assert done.returncode == 0, done.stderr
        if "--json" in flag:
            text = done.stdout.decode(encoding)
            assert text.isascii()
            assert {row["image_key"] for row in json.loads(text)} == set(NAMES)


def test_names_survive_a_locale_without_them(tmp_path: Path, repository_root: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "图.jpg").write_text("no image")
    flags = ("--images", tmp_path / "pics", "--work", tmp_path / "work", "--device", "cpu", "-q")
    narrow = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": None}
    done = run("masks", *flags, "--config", repository_root / "configs" / "random.yaml", **narrow)
    assert done.returncode == 4, done.stderr
    rows = json.loads(run("status", "--work", tmp_path / "work", "--failed", "--json", **narrow).stdout)
    assert [(row["image_key"], row["status"]) for row in rows] == [("图.jpg", "failed")]


NOBODY = """
import pwd
def unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = unknown
"""


@pytest.mark.parametrize("home", [None, "", "/nonexistent", "/proc"])
def test_no_home_and_no_user_stop_nothing(home: str | None, tmp_path: Path, work: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOBODY)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).resolve().parents[2])])
    gone = {"HOME": home, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None, "PYTHONPATH": path}
    masks = (
        "masks",
        "--profile",
        "demo",
        "--images",
        work.parent / "pics",
        "--work",
        tmp_path / "w",
        "--device",
        "cpu",
    )
    for arguments in (
        ("weights", "list"),
        *([masks] if home is None else []),  # imports torch, which asks for the user's name
        ("status", "--work", "~/w"),
        ("status", "--work", "~nobody-of-this-name/w"),
    ):
        done = run(*arguments, **gone)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode in (0, 2, 4), done.stderr
    assert "write the entire path" in done.stderr


@pytest.mark.parametrize(
    ("command", "waits"),
    [
        (("--help",), (0.15, 0.4)),
        (("masks", "--images", "pics", "--profile", "demo", "--device", "cpu"), (0.3, 0.7, 1.2, 1.8, 2.6)),
    ],
)
def test_ctrl_c_at_any_moment_of_the_start_gives_no_traceback(
    command: tuple[str, ...], waits: tuple[float, ...], work: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    (tmp_path / "pics").symlink_to(work.parent / "pics")
    for wait in waits:
        child = subprocess.Popen(
            [*COMMAND, *command], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment
        )
        time.sleep(wait)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=100)
        assert b"Traceback" not in told, told
        assert child.returncode in (130, -signal.SIGINT, 0, 4), told
