"""A folder of files with names and natures that a careless program falls over, made in code; what each must come to."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from odd_images import RGB, save

GOOD = save(RGB, "PNG")
LONG = "l" * 251 + ".png"


@dataclass(frozen=True)
class OddFile:
    """A file as the folder source lists it: its key, and the status and reason (None: it is read)."""

    key: str
    status: str = "done"
    reason: str | None = None


NAMES = {
    b"with space.png": "with space.png",
    b"two\nlines.png": "two\nlines.png",
    b"tab\there.png": "tab\there.png",
    b"\x1b[2J\x1b[31mred.png": "\x1b[2J\x1b[31mred.png",
    b"bell\x07.png": "bell\x07.png",
    b"'quoted' \"twice\".png": "'quoted' \"twice\".png",
    b"$(touch executed).png": "$(touch executed).png",
    b"--help.png": "--help.png",
    b"back\\slash.png": "back\\slash.png",
    b"looks\\x41escaped.png": "looks\\x5cx41escaped.png",
    b"[red]markup[bold].png": "[red]markup[bold].png",
    b"{0}%s.png": "{0}%s.png",
    b"comma,semi;colon:.png": "comma,semi;colon:.png",
    b"not utf8 \xff\xfe.png": "not utf8 \\xff\\xfe.png",
    b"half \xed\xa0\x80 pair.png": "half \\xed\\xa0\\x80 pair.png",
    "emoji 🦔.png".encode(): "emoji 🦔.png",
    "right\u202eto left.png".encode(): "right\u202eto left.png",
    "e\u0301 and \u00e9.png".encode(): "e\u0301 and \u00e9.png",
    b"<script>alert(1)<&script>.png": "<script>alert(1)<&script>.png",
    LONG.encode(): LONG,
    b"UPPER.PNG": "UPPER.PNG",
    b"2000000000000000000000.png": "2000000000000000000000.png",
}
"""Name on disk -> key."""


def lay_names(folder: Path) -> Iterator[OddFile]:
    """Good pictures with odd names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in NAMES.items():
        (folder / os.fsdecode(name)).write_bytes(GOOD)
        yield OddFile(key)


def lay_natures(folder: Path) -> Iterator[OddFile]:
    """Links, loops, pipes and folders that are called like pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "real.png").write_bytes(GOOD)
    yield OddFile("real.png")
    (folder / "hard link.png").hardlink_to(folder / "real.png")
    yield OddFile("hard link.png")
    (folder / "link.png").symlink_to("real.png")
    yield OddFile("link.png")
    (folder / "chain.png").symlink_to("link.png")
    yield OddFile("chain.png")
    (folder / "loop.png").symlink_to("loop.png")
    yield OddFile("loop.png", "failed", "cannot be read: Too many levels of symbolic links")
    (folder / "there.png").symlink_to("back.png")
    (folder / "back.png").symlink_to("there.png")
    yield OddFile("there.png", "failed", "cannot be read: Too many levels of symbolic links")
    yield OddFile("back.png", "failed", "cannot be read: Too many levels of symbolic links")
    (folder / "dangling.png").symlink_to("nowhere.png")
    yield OddFile("dangling.png", "gone", "the image is gone")
    (folder / "beneath.png").symlink_to("real.png/x.png")
    yield OddFile("beneath.png", "gone", "the image is gone")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inner.png").write_bytes(GOOD)
    yield OddFile("folder.jpg/inner.png")
    (folder / "round.jpg").symlink_to(".")  # a link to a folder is not followed
    (folder / "round again").symlink_to("..")
    os.mkfifo(folder / "pipe.jpg")
    yield OddFile("pipe.jpg", "failed", "cannot be read: not a regular file")
    (folder / "pipe behind a link.jpg").symlink_to("pipe.jpg")
    yield OddFile("pipe behind a link.jpg", "failed", "cannot be read: not a regular file")
    (folder / "endless.jpg").symlink_to("/dev/zero")
    yield OddFile("endless.jpg", "failed", "cannot be read: not a regular file")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(folder)  # the path of a socket may be 108 bytes long
        listener.bind("socket.jpg")
        os.chdir(here)
    yield OddFile("socket.jpg", "failed", "cannot be read: not a regular file")
    (folder / "sparse.png").touch()
    os.truncate(folder / "sparse.png", 1_000_000_000)
    yield OddFile("sparse.png", "failed", "cannot be read: 1,000,000,000 bytes are more than an image has")
    (folder / ".hidden.png").write_bytes(GOOD)
    (folder / ".git").mkdir()
    (folder / ".git" / "x.png").write_bytes(GOOD)
    (folder / "notes.txt").write_bytes(b"no picture, and not called one")
    (folder / "no suffix").write_bytes(GOOD)
    yield OddFile("no suffix")
    deep = folder
    for _ in range(60):
        deep = deep / "deep"
    deep.mkdir(parents=True)
    (deep / "x.png").write_bytes(GOOD)
    yield OddFile("deep/" * 60 + "x.png")
