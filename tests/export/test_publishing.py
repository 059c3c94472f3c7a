"""The folder of an export: made once, replaced whole or not at all, and whole again after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from exported_work import Made

from pseudoris_cli.errors import UsageError
from pseudoris_cli.export import base, destination, render
from pseudoris_cli.export.base import ExportImage
from pseudoris_cli.export.destination import ProtectedFolder
from pseudoris_cli.export.render import render_export


def test_an_export_is_made_once_and_again_when_anything_differs(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    assert render_export(made.job(), out, False)
    assert {path.name for path in out.iterdir()} == {"train.jsonl", destination.MARKER}
    first = (out / "train.jsonl").read_bytes()
    marker = json.loads((out / destination.MARKER).read_text())
    assert marker == {"export": made.job().identity, "made": "here"}
    assert destination.export_identity(out) == made.job().identity
    (out / "mine.txt").write_text("x")
    assert not render_export(made.job(), out, False)
    assert not render_export(made.job(provenance={"made": "elsewhere"}), out, False), "no file depends on it alone"
    assert (out / "mine.txt").exists(), "nothing was written"
    for change in ({"dataset": "refcocog"}, {"split_by": "x"}, {"images": "copy"}, {"formats": ("jsonl", "coco")}):
        assert render_export(made.job(**change), out, False), change
        assert not (out / "mine.txt").exists()
        assert not render_export(made.job(**change), out, False), change
    made.commit("filter", 2, [])
    assert render_export(made.job(), out, False), "the artifacts changed"
    assert (out / "train.jsonl").read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def failing(after: Callable[[], None]) -> Any:
    """A format that writes a file and then fails."""

    @contextmanager
    def open_writer(context: Any, folder: Path) -> Iterator[Callable[[ExportImage], None]]:
        (folder / "half.txt").write_text("half")
        yield lambda image: after()

    return SimpleNamespace(open_writer=open_writer)


def test_an_export_that_fails_leaves_the_old_one_and_nothing_else(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    render_export(made.job(), out, False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "load_format", lambda name: failing(stop))
    with pytest.raises(KeyboardInterrupt):
        render_export(made.job(split_by="other"), out, False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_crash_left_is_cleared_away(made: Made, tmp_path: Path) -> None:
    staging, replaced, out = tmp_path / ".out.staging", tmp_path / ".out.replaced", tmp_path / "out"
    for folder in (staging, replaced):
        folder.mkdir()
        (folder / "old.txt").write_text("x")
    render_export(made.job(), out, True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not (out / "old.txt").exists()


def test_an_export_that_was_moved_aside_is_put_back(made: Made, tmp_path: Path) -> None:
    """A crash between the two renames: the old export must not be made again, let alone be lost."""
    out = tmp_path / "out"
    render_export(made.job(), out, False)
    out.rename(tmp_path / ".out.replaced")
    assert not render_export(made.job(), out, False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_link_to_a_folder_is_replaced_and_not_followed(made: Made, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    render_export(made.job(), tmp_path / "out", True)
    assert not (tmp_path / "out").is_symlink()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "out"]


def test_everything_is_on_the_disk_before_it_has_its_name(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []
    for name in ("sync_tree", "publish", "sync_folder"):
        plainly = getattr(render.files, name)
        monkeypatch.setattr(render.files, name, lambda *a, n=name, f=plainly: (steps.append((n, a[-1].name)), f(*a))[1])
    render_export(made.job(), tmp_path / "out", False)
    assert steps == [("sync_tree", ".out.staging"), ("publish", "out"), ("sync_folder", tmp_path.name)]


# --- where --------------------------------------------------------------------------------------------------------------


def test_only_an_export_or_nothing_is_replaced(made: Made, tmp_path: Path) -> None:
    file, folder, empty = tmp_path / "file", tmp_path / "folder", tmp_path / "empty"
    file.write_text("mine")
    for place in (folder, empty):
        place.mkdir()
    (folder / "mine.txt").write_text("mine")
    for place in (file, folder):
        with pytest.raises(UsageError, match="exists and was not made by pseudoris"):
            render_export(made.job(), place, False)
    assert (file.read_text(), (folder / "mine.txt").read_text()) == ("mine", "mine")
    assert render_export(made.job(), empty, False)
    for place in (file, folder):
        assert render_export(made.job(), place, True)
        assert destination.export_identity(place) == made.job().identity


@pytest.mark.parametrize("text", ["nonsense", "[]", "{}", '{"export": null}'])
def test_another_file_of_that_name_is_no_export(tmp_path: Path, text: str) -> None:
    (tmp_path / destination.MARKER).write_text(text)
    assert destination.export_identity(tmp_path) is None
    with pytest.raises(UsageError, match="was not made by pseudoris"):
        destination.check(tmp_path, False)


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("", "has no name of its own"),
        ("..", "has no name of its own"),
        ("\udcff", "is not valid UTF-8"),
        ("here", "would replace the images, "),
        ("here/pictures", "would replace the images, "),
        ("here/pictures/deep/er", "lies within the images, "),
        ("link", "would replace the images, "),
    ],
)
def test_no_export_goes_where_it_would_do_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, says: str
) -> None:
    """Not even with --overwrite."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "pictures").mkdir(parents=True)
    (tmp_path / "link").symlink_to("here")
    protected = [ProtectedFolder("the images", Path("here/pictures"))]
    with pytest.raises(UsageError, match=says):
        destination.check(Path(out), True, protected)
    for allowed in ("out", "here/pictures2", "here/out"):
        destination.check(Path(allowed), False, protected)
