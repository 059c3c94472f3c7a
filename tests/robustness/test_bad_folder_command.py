"""A folder full of odd and hostile files through the real command, all four stages, status and report."""

from __future__ import annotations

import json
from pathlib import Path

from bad_images import bad_images
from command_server import SMALL, CommandServer
from odd_files import lay_names, lay_natures
from odd_images import odd_images
from trivial_stages import outcomes, rows


def test_good_ones_are_done_and_bad_ones_listed_with_their_reason(
    command_server: CommandServer, ram_path: Path
) -> None:
    images = ram_path / "images"
    files = {f"names/{file.key}": file for file in lay_names(images / "names")}
    files |= {f"natures/{file.key}": file for file in lay_natures(images / "natures")}
    for folder, cases in (("good", list(odd_images())[::6]), ("wrong", list(bad_images()))):
        (images / folder).mkdir()
        for case in cases:
            (images / folder / case.name).write_bytes(case.data)
    (images / "wrong" / "\x1b[2J\nforged\tline\x9b.jpg").write_bytes(b"no picture")
    done = command_server.call(
        ram_path, "run", "--images", "images", "--work", "work", "--out", "out", *SMALL, "--set", "source.part_size=64"
    )
    assert done.code == 4, done.err
    assert "Traceback" not in done.err
    found = outcomes(ram_path / "work", "masks")
    for key, file in files.items():
        allowed = ("done", "empty") if file.status == "done" else (file.status,)
        assert found[key].status in allowed, found[key]
        assert found[key].error == file.reason
    for key, image in found.items():
        if key.startswith("good/"):
            assert image.status in ("done", "empty"), image
        if key.startswith("wrong/"):
            assert (image.status, bool(image.error)) == ("failed", True), image
    assert len({row["image_key"] for row in rows(ram_path / "work", "captions")}) > 30
    unhappy = sum(image.status in ("failed", "gone") for image in found.values())
    assert unhappy > 100
    listed = command_server.call(ram_path, "status", "--work", "work", "--failed")
    lines = listed.out.splitlines()
    assert len(lines) == unhappy
    assert all(len(line.split("\t")) == 4 for line in lines)
    assert listed.out.replace("\n", "").replace("\t", "").isprintable()
    assert "wrong/\\x1b[2J\\nforged\\tline\\x9b.jpg\tfailed\tnot an image of a known format" in listed.out
    as_json = command_server.call(ram_path, "status", "--work", "work", "--failed", "--json")
    assert {row["image_key"] for row in json.loads(as_json.out)} == {
        k for k, i in found.items() if i.status in ("failed", "gone")
    }
    assert as_json.out.replace("\n", "").isprintable()
    report = command_server.call(ram_path, "report", "--work", "work", "--sample", "300")
    assert report.code == 0, report.err
    assert not list(ram_path.rglob("executed"))
