"""What an impatient user does wrong: a message and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from unittest import mock

import pytest
from invoking import invoke
from trivial_stages import in_child, paint

from pseudoris_cli.__main__ import main
from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import destination
from pseudoris_cli.text import visible


@pytest.mark.parametrize("out", [".", "..", "/", "a/..", os.fsdecode(b"caf\xe9/out")])
def test_an_export_needs_a_name_that_can_be_written(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="--out"):
        destination.check(Path(out), True, [])


def test_a_list_of_images_none_of_which_is_there_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.png\nb.png\n")
    done = invoke(
        "masks", "--images", tmp_path / "list.txt", "--work", tmp_path / "work", "--config", "configs/random.yaml",
        "--device", "cpu",
    )  # fmt: skip
    assert (done.code, "none of the 2 images was there" in done.stderr) == (4, True)


def test_settings_too_large_for_memory_are_explained(tmp_path: Path) -> None:
    paint(tmp_path / "images" / "1.png", 1, (48, 36))
    done = invoke(
        "masks", "--images", tmp_path / "images", "--work", tmp_path / "work", "--config", "configs/random.yaml",
        "--device", "cpu", "--set", "masks.sam.points_per_side=3000000",
    )  # fmt: skip
    assert (done.code, "not enough memory" in done.stderr) == (1, True), done.stderr


def test_a_folder_that_is_no_utf_8(tmp_path: Path) -> None:
    """A name on disk may be any bytes: it is remembered, and shown with escapes."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    paint(folder / "images" / "1.png", 1, (48, 36))
    (folder / "images" / "\x1b[2J.png").write_bytes(b"nothing")
    work = folder / "work"
    for _ in range(2):
        done = invoke(
            "masks", "--images", folder / "images", "--work", work, "--config", "configs/random.yaml", "--device", "cpu"
        )
        assert done.code == 4, done.stderr
    for command in (["status"], ["status", "--json"], ["status", "--failed"], ["report"]):
        done = invoke(*command, "--work", work)
        assert done.code == 0, done.stderr
        assert done.stdout.replace("\n", "").replace("\t", "").isprintable()


def test_a_signal_after_the_end_meets_no_handler_of_ours(tmp_path: Path) -> None:
    """While Python shuts down nobody would catch what the handler raises: a traceback after a good run."""
    invoke("status", "--work", tmp_path)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == [signal.SIG_DFL] * 3


def test_a_signal_while_an_error_is_told_gives_no_traceback(capfd: pytest.CaptureFixture) -> None:
    def told(message: str) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return message

    def child() -> None:
        with (
            mock.patch("pseudoris_cli.__main__.visible", told),
            mock.patch("sys.argv", ["pseudoris", "captions", "--gpu", "none"]),
        ):
            main()

    assert in_child(child) == -signal.SIGTERM
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 🦔", "plain é 🦔"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\tb", "a\\tb"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("\u202e", "\\u202e"),
        ("\udcff", "\\udcff"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_what_a_terminal_would_act_on_is_written_out(name: str, shown: str) -> None:
    assert visible(name) == shown
    assert "\n" not in visible(name, "")
