"""Where exports go: file systems without links, folders that cannot be replaced, leftovers of systems, and upright pixels."""

from __future__ import annotations

import errno
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_work import Made
from PIL import Image

from pseudoris_cli.codecs.image_decode import decode_rgb
from pseudoris_cli.codecs.image_upright import is_upright, upright
from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.export import destination, render
from pseudoris_cli.export.render import render_export
from pseudoris_cli.storage import files, trial

LEFTOVERS = ("lost+found", ".DS_Store", "Thumbs.db", "System Volume Information", ".snapshot", ".nfs000123", "@eaDir")


def refuse(number: int) -> Callable[..., Any]:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return refused


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- links ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EINVAL])
def test_copies_need_no_links_and_links_are_refused_before_the_work(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "symlink", refuse(number))
    out = tmp_path / "out"
    assert render_export(made.job(formats=("refcoco",), images="copy"), out, False)
    assert list((out / "images" / "train2014").iterdir())
    assert not (out / "images" / "mscoco").exists()
    with pytest.raises(UsageError, match=r"makes no symbolic links .* use --images copy"):
        destination.check_abilities(tmp_path / "other", links=True)
    with pytest.raises(UsageError, match="makes no symbolic links"):
        render_export(made.job(formats=("refcoco",), images="link"), tmp_path / "other", False)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- leftovers and folders that cannot be replaced ------------------------------------------------------------------


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_systems_leave_neither_hinders_nor_is_lost(made: Made, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).mkdir(parents=True)
    (out / name / "kept").write_text("theirs")
    destination.check(out, False)
    assert render_export(made.job(), out, False)
    first = tree(out)
    assert (out / name / "kept").read_text() == "theirs"
    assert not render_export(made.job(), out, False)
    assert render_export(made.job(formats=("coco",)), out, False)
    assert (out / name / "kept").read_text() == "theirs"
    assert not (out / "train.jsonl").exists()
    assert render_export(made.job(), out, False)
    assert tree(out) == first
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_the_user_beside_leftovers_are_refused(made: Made, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "lost+found").mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="was not made by pseudoris"):
        destination.check(out, False)


def test_a_mount_point_is_filled_and_not_replaced(made: Made, small_disk: Callable[[str], Path]) -> None:
    out = small_disk("size=20m")
    for formats in (("jsonl",), ("coco",), ("jsonl",)):
        assert render_export(made.job(formats=formats), out, False)
        assert os.path.ismount(out)
        assert {path.name for path in out.parent.iterdir()} == {out.name}
        assert not any((out / name).exists() for name in destination.WITHIN)


@pytest.mark.parametrize("at", range(1, 12))
def test_a_crash_while_publishing_within_a_folder_is_mended(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A stop at any rename: afterwards there is the old export or the new one, entire."""
    out = tmp_path / "out"
    (out / "lost+found").mkdir(parents=True)
    render_export(made.job(formats=("jsonl", "coco")), out, False)
    old = tree(out)
    plainly, seen = files.publish, []

    def stopping(*paths: Path) -> None:
        seen.append(paths)
        if len(seen) == at:
            raise KeyboardInterrupt
        plainly(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(render.files, "publish", stopping)
        try:
            render_export(made.job(formats=("coco", "refcoco")), out, False)
        except KeyboardInterrupt:
            pass
        else:
            assert len(seen) < at
    render._finish_publishing(out)
    whole = tree(out)
    assert whole == old or json.loads((out / destination.MARKER).read_text())["export"]["formats"] == [
        "coco",
        "refcoco",
    ]
    assert render_export(made.job(formats=("coco", "refcoco")), out, False) == (whole == old)
    assert "train.jsonl" not in tree(out)
    assert {path.name for path in out.iterdir()} >= {"lost+found", "annotations", "refcoco"}
    assert not any((out / name).exists() for name in destination.WITHIN)


def test_no_export_takes_the_place_of_home_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here" / "deep").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here" / "deep")
    for place, what in (("home", "your home"), ("here", "the current folder"), ("here/deep", "the current folder")):
        with pytest.raises(UsageError, match=f"would replace {what}"):
            destination.check(tmp_path / place, True)
    destination.check(tmp_path / "home" / "out", False)


# --- abilities and their words --------------------------------------------------------------------------------------


def test_a_good_disk_can_everything_and_keeps_nothing(tmp_path: Path) -> None:
    assert [one.name for one in trial.abilities(tmp_path / "not" / "yet")] == [
        "rename",
        "append",
        "sync",
        "lock",
        "link",
        "case",
    ]
    assert not trial.lacks(tmp_path, "rename", "append", "sync", "lock", "link", "case")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("module", "call", "name"), [("os", "replace", "rename"), ("fcntl", "flock", "lock"), ("os", "fsync", "sync")]
)
def test_what_a_disk_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, call: str, name: str
) -> None:
    monkeypatch.setattr(f"{module}.{call}", refuse(errno.ENOSYS))
    assert [one.name for one in trial.abilities(tmp_path) if one.error] == [name]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    files.sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "says", "never"),
    [
        (errno.EROFS, "read-only", "permissions"),
        (errno.EPERM, "the file system cannot do this", "permissions"),
        (errno.EOPNOTSUPP, "the file system cannot do this", "permissions"),
        (errno.EFBIG, "FAT32", "same command"),
        (errno.EXDEV, "cannot be renamed", "same command"),
        (errno.EINVAL, "does not take this name", "same command"),
        (errno.ENAMETOOLONG, "longer than this file system takes", "same command"),
        (errno.EDQUOT, "quota", "permissions"),
        (errno.ENOSPC, "the disk is full", "permissions"),
        (errno.EACCES, "Check its permissions", "same command"),
        (errno.ENOTDIR, "is a file, not a folder", "same command"),
    ],
)
def test_errors_are_called_what_they_are(tmp_path: Path, number: int, says: str, never: str) -> None:
    with pytest.raises(EnvironmentStop, match=says) as told, files.os_errors_as_stop(tmp_path):
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))
    assert never not in str(told.value)


# --- upright pixels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["copy", "upright", "link"])
def test_every_reader_sees_the_frame_of_the_masks(made: Made, tmp_path: Path, orientation: int, mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (6, 8) if orientation >= 5 else (8, 6)
    pixels = np.random.default_rng(orientation).integers(0, 255, (stored[1], stored[0], 3), np.uint8)
    Image.fromarray(pixels).save(made.pictures / "a.png", "JPEG", exif=exif)
    render_export(made.job(formats=("coco",), images=mode), tmp_path / "out", False)
    listed = json.loads((tmp_path / "out" / "annotations" / "instances_train.json").read_text())
    [image] = [image for image in listed["images"] if image["file_name"] == "a.png"]
    path = tmp_path / "out" / "images" / "train2014" / "a.png"
    with Image.open(path) as opened:
        assert opened.size == (image["width"], image["height"]) == (8, 6)
        assert opened.getexif().get(0x0112, 1) == 1
        np.testing.assert_array_equal(
            np.asarray(opened.convert("RGB")), decode_rgb((made.pictures / "a.png").read_bytes(), 1000)
        )
    assert path.is_symlink() == (mode == "link" and orientation == 1)


def test_what_has_no_orientation_stays_byte_for_byte() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 6)).save(buffer, kind)
        assert upright(buffer.getvalue()) is buffer.getvalue() or upright(buffer.getvalue()) == buffer.getvalue()
        assert is_upright(buffer)


def test_what_a_kill_left_of_a_trial_goes_with_a_later_one(tmp_path: Path) -> None:
    for name, age in (("old", 3600), ("at-work", 1)):
        (tmp_path / f".pseudoris-trial-{name}").mkdir()
        (tmp_path / f".pseudoris-trial-{name}" / "b").touch()
        then = time.time() - age
        os.utime(tmp_path / f".pseudoris-trial-{name}", (then, then))
    assert not trial.lacks(tmp_path, "rename")
    assert [path.name for path in tmp_path.iterdir()] == [".pseudoris-trial-at-work"], "another command may be at it"


def test_only_what_is_asked_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sync_file", lambda path: pytest.fail("nobody asked"))
    assert not trial.lacks(tmp_path, "rename", "lock")
