"""A folder's images by content, and what is passed over: counted by kind, named in the summary and by `status`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from invoking import draw_pictures, invoke
from odd_images import RGB, save

from pseudoris_cli.codecs.image_decode import UndecodableImage, decode_rgb
from pseudoris_cli.sources.folder import Folder

PNG = save(RGB, "PNG")
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


def listed(root: Path) -> tuple[list[str], dict[str, int]]:
    source = Folder(root)
    keys = [image.key for image in source.images()]
    assert source.left_out is not None
    assert source.left_out.complete
    return keys, {kind: row["count"] for kind, row in source.left_out.kinds.items()}


def lay(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("photo", PNG),
        ("a.jfif", save(RGB, "JPEG")),
        ("a.jpg_large", save(RGB, "JPEG")),
        ("a.jpg.1", save(RGB, "JPEG")),
        ("a.img", save(RGB, "GIF")),
        ("a.dib", save(RGB, "BMP")),
        ("a.pnm", save(RGB, "PPM")),
        ("a.j2k", save(RGB, "JPEG2000")),
        ("a.foo", save(RGB, "WEBP")),
        ("a.bar", save(RGB, "TIFF")),
    ],
)
def test_an_image_is_known_by_its_content(name: str, data: bytes, tmp_path: Path) -> None:
    lay(tmp_path, {name: data, "note": b"a text", "empty": b"", "labels.txt": PNG})
    assert listed(tmp_path) == ([name], {})
    assert decode_rgb((tmp_path / name).read_bytes(), 10**6).shape == (*RGB.shape[:2], 3)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.heic", b"", "of a kind that is not read: HEIC"),
        ("IMG_1", HEIC, "of a kind that is not read: HEIC"),
        ("a.x", b"\0\0\0\x1cftypavif\0\0\0\0avif", "of a kind that is not read: AVIF"),
        ("a.NEF", b"II*\0" + bytes(80), "of a kind that is not read: camera raw"),
        ("a.psd", b"8BPS", "of a kind that is not read: Photoshop"),
        ("shard-000.tar", b"", "of a kind that is not read: archive"),
        ("clip.MOV", b"", "of a kind that is not read: video"),
        (".secret.jpg", PNG, "hidden (the name begins with a dot)"),
        (".IMG_1.HEIC.icloud", b"", "not downloaded (placeholders of a cloud folder)"),
        ("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
        ("x/@EADIR/a.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
        ("__MACOSX/a.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
        ("#recycle/a.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
        ("$RECYCLE.BIN/a.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
        ("System Volume Information/a.jpg", PNG, "in folders of the system (thumbnails, recycle bins, snapshots)"),
    ],
)
def test_what_is_passed_over_is_counted_by_kind(name: str, data: bytes, kind: str, tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"good.png": PNG, name: data, "._good.png": b"AppleDouble", ".thumbnails/good.png": PNG, "Thumbs.db": b"x"},
    )
    assert listed(tmp_path) == (["good.png"], {kind: 1})


def test_folders_behind_links_and_a_listing_that_is_not_finished_are_told(tmp_path: Path) -> None:
    lay(tmp_path, {"pics/a.png": PNG, "pics/b.png": PNG, "other/c.png": PNG})
    (tmp_path / "pics" / "z").symlink_to(tmp_path / "other")
    assert listed(tmp_path / "pics") == (["a.png", "b.png"], {"in folders behind a link": 1})
    source = Folder(tmp_path / "pics")
    next(source.images())
    assert source.left_out is not None
    assert not source.left_out.complete


def test_heic_called_jpg_says_so() -> None:
    with pytest.raises(UndecodableImage, match="not an image of a known format: HEIC, which is not read"):
        decode_rgb(HEIC, 100)


@pytest.mark.timeout(120)
def test_summary_and_status_say_what_was_left_out(tmp_path: Path, repository: Path) -> None:
    draw_pictures(tmp_path / "pics", 1)
    lay(tmp_path / "pics", {"a.heic": HEIC, "b.heic": HEIC, "sub/clip.mp4": b""})
    flags = ("--work", tmp_path / "work", "--images", tmp_path / "pics", "--device", "cpu")
    small = ("--config", repository / "configs" / "random.yaml")
    done = invoke("masks", *flags, *small)
    assert done.code == 0, done.stderr
    lines = [
        "left out: 2 of a kind that is not read: HEIC, e.g. ",
        "left out: 1 of a kind that is not read: video, e.g. ",
    ]
    for line in lines:
        assert line in done.stderr
        assert line in invoke("status", "--work", tmp_path / "work").stdout
    found = json.loads(invoke("status", "--work", tmp_path / "work", "--json").stdout)["left_out"]
    assert {kind: row["count"] for kind, row in found.items()} == {
        "of a kind that is not read: HEIC": 2,
        "of a kind that is not read: video": 1,
    }
    (tmp_path / "pics" / "a.heic").unlink()
    (tmp_path / "pics" / "b.heic").unlink()
    again = json.loads(invoke("masks", *flags, *small, "--json").stdout)
    assert list(again["left_out"]) == ["of a kind that is not read: video"]


@pytest.mark.skipif(
    os.getuid() != 0, reason="drops root's right to read everything, so that there is an unreadable folder"
)
def test_a_folder_that_may_not_be_listed_costs_only_itself(tmp_path: Path) -> None:
    lay(tmp_path, {"a.png": PNG, "lost+found.d/b.png": PNG, "lost+found/c.png": PNG})
    for name in ("lost+found.d", "lost+found"):
        (tmp_path / name).chmod(0)
    code = (
        "import sys; from pathlib import Path; from pseudoris_cli.sources import registry as r\n"
        "s = r.open_source(r.describe(Path(sys.argv[1]), {}, None))\n"
        "print([i.key for i in s.images()], {k: v['count'] for k, v in s.left_out.kinds.items()})"
    )
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run([*drop, sys.executable, "-c", code, tmp_path], capture_output=True, text=True)
    for name in ("lost+found.d", "lost+found"):
        (tmp_path / name).chmod(0o755)
    assert done.stdout.startswith("['a.png']"), done.stderr
    assert "'in folders that may not be listed': 1" in done.stdout
    assert "'in folders of the system (thumbnails, recycle bins, snapshots)': 1" in done.stdout
