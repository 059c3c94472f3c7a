"""Every stage ends with the command that comes next, as it must be typed; `-q` leaves errors only; `run` takes export's flags."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke


def after(text: str, word: str) -> list[str]:
    """The words after `pseudoris` of a line that proposes a command."""
    [line] = [line for line in text.splitlines() if line.startswith(f"{word}: ")]
    words = shlex.split(line.removeprefix(f"{word}: "))
    assert words[0] == "pseudoris"
    return words[1:]


def test_the_commands_that_are_proposed_lead_to_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is typed as it stands, in a folder whose name has a space."""
    monkeypatch.chdir(tmp_path)
    draw_pictures(tmp_path / "my pictures", 2)
    done = invoke(
        "masks", "--images", "my pictures", "--work", "my work", "--profile", "random", "--device", "cpu"
    )  # fmt: skip
    for command in ("captions", "filter"):
        words = after(done.stderr, "next")
        assert words[0] == command
        assert words[words.index("--work") + 1] == "my work"
        done = invoke(*words)
        assert done.code == 0, done.stderr
    assert after(done.stderr, "next") == ["report", "--work", "my work"]
    assert invoke(*after(done.stderr, "next")).code == 0
    exported = invoke(*after(done.stderr, "then"))
    assert exported.code == 0, exported.stderr
    assert (tmp_path / "data" / "pseudo" / "refcoco").is_dir()

    quiet = invoke("masks", "--work", "my work", "--profile", "random", "--device", "cpu", "-q")
    assert (quiet.code, quiet.stderr) == (0, "")
    assert "nothing to do" in quiet.stdout


def test_run_takes_the_flags_of_the_export_and_is_quiet(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures", 3)
    common = (
        "run",
        "--images",
        tmp_path / "pictures",
        "--work",
        tmp_path / "w",
        "--profile",
        "random",
        "--device",
        "cpu",
    )
    flags = ("--split", "train=.5,val=.5", "--dataset", "mine", "--max-captions", "1", "--export-images", "copy")
    done = invoke(*common, "--out", tmp_path / "out", *flags, "-q")
    assert (done.code, done.stderr) == (0, "")
    [folder] = [path for path in (tmp_path / "out").iterdir() if path.is_dir() and path.name == "mine"]
    refs = json.loads((folder / "refs(pseudo).json").read_text())
    assert {len(ref["sentences"]) for ref in refs} == {1}
    assert {ref["split"] for ref in refs} == {"train", "val"}
    assert list((tmp_path / "out").rglob("*.png")), "copied"

    again = invoke(
        "export", "--work", tmp_path / "w", "--profile", "random", "--out", tmp_path / "out", *flags, "--json"
    )
    assert json.loads(again.stdout)["rendered"] is False, "the same flags say the same in both commands"
    clash = invoke(*common[:1], "--images", "copy")
    assert (clash.code, "--export-images copy says how image files come" in clash.stderr) == (2, True)
