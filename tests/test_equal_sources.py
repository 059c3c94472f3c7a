"""The demo's scenes in a folder, in tars, in Parquet files and on an S3 server give equal rows, but for their keys."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from invoking import draw_pictures, invoke, rows_of
from packed import pack, pictures_in
from PIL import Image
from s3_server import KEY, SECRET, moto, upload

from pseudoris_cli.export.base import format_names

STAGES = ("masks", "captions", "scores", "filter")
OWN = ("image_key", "image_id", "file_name")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Work directories of `pseudoris run` on two scenes, by where these lay."""
    folder = tmp_path_factory.mktemp("equal")
    draw_pictures(folder / "folder", 2)
    pictures = pictures_in(folder / "folder")
    places: dict[str, Path | str] = {"folder": folder / "folder"}
    for kind in ("webdataset", "parquet"):
        places[kind] = pack(kind, pictures, folder / kind, each=1)
    patch = pytest.MonkeyPatch()
    with moto() as url, patch.context() as context:
        for name, value in (("AWS_ENDPOINT_URL", url), ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)):
            context.setenv(name, value)
        for kind in list(places):
            upload(url, f"equal-{kind}", Path(places[kind]))
            places[f"s3 {kind}"] = f"s3://equal-{kind}"
        made = {}
        for name, images in places.items():
            made[name] = folder / f"work {name}"
            done = invoke("run", "--work", made[name], "--images", images, "--profile", "demo", "--device", "cpu", "-q")
            assert done.code == 0, (name, done.stderr)
        yield made


def plain(work: Path, stage: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in OWN} for row in rows_of(work, stage)]


@pytest.mark.parametrize("stage", STAGES)
def test_rows_are_equal_but_for_keys(runs: dict[str, Path], stage: str) -> None:
    expected = plain(runs["folder"], stage)
    assert len(expected) > 3
    for name, work in runs.items():
        assert plain(work, stage) == expected, name
        names = [row["image_key"].rpartition("/")[2] for row in rows_of(work, stage)]
        assert names == [row["image_key"] for row in rows_of(runs["folder"], stage)], name


def held(out: Path, form: str) -> set[str]:
    """The pictures in an export: a digest of the bytes of each, or of the pixels in a format that writes others."""
    if form == "hf":
        rows = [
            row
            for path in out.rglob("*.parquet")
            for row in pq.read_table(path, columns=["image"]).column(0).to_pylist()
        ]
        return {hashlib.sha256(row["bytes"]).hexdigest() for row in rows}
    if form == "webdataset":
        found = set()
        for path in out.rglob("*.tar"):
            with tarfile.open(path) as tar:
                for one in tar:
                    if not one.name.endswith(".json") and (data := tar.extractfile(one)):
                        found.add(
                            hashlib.sha256(Image.open(io.BytesIO(data.read())).convert("RGB").tobytes()).hexdigest()
                        )
        return found
    images = [path for path in out.rglob("*") if "images" in path.parts and path.is_file()]
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in images}


@pytest.mark.parametrize("form", format_names())
def test_every_format_copies_pictures_out_of_containers(runs: dict[str, Path], form: str, tmp_path: Path) -> None:
    found = {}
    for name in ("folder", "webdataset", "parquet"):
        out = tmp_path / name
        done = invoke("export", "--work", runs[name], "--format", form, "--out", out, "--export-images", "copy", "-q")
        assert done.code == 0, done.stderr
        found[name] = held(out, form)
    assert len(found["folder"]) == 2
    assert found["webdataset"] == found["parquet"] == found["folder"]


def test_links_into_a_container_are_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    done = invoke("export", "--work", runs["webdataset"], "--out", tmp_path / "out", "--export-images", "link", "-q")
    assert (done.code, "Use --images copy or none" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_the_report_shows_pictures_of_a_container(runs: dict[str, Path], tmp_path: Path) -> None:
    pages = []
    for name in ("folder", "parquet"):
        done = invoke("report", "--work", runs[name], "--out", tmp_path / f"{name}.html")
        assert done.code == 0, done.stderr
        pages.append((tmp_path / f"{name}.html").read_text().count("data:image/jpeg"))
    assert pages[0] == pages[1] > 0
