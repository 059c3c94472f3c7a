"""Sources behind a real S3 server, and behind a proxy that stalls, resets, and sends too little: nothing is lost or doubled."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest
from packed import KINDS, pack, pictures_in
from s3_server import KEY, SECRET, Fault, Proxy, delete, misbehaving, moto, put, upload
from trivial_stages import Bench, check_whole, outcomes, paint, paint_folder, recognised, rows

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.places import ahead, remote, retrying
from pseudoris_cli.sources import folder, registry
from pseudoris_cli.sources.base import Source

ALL = ("folder", *KINDS)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with moto() as url:
        yield url


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The proxy in front of the server, found by the variables that every S3 client looks at."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(remote, "TIMEOUT", 1.0)
    with misbehaving(server) as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL", state.url)
        yield state
    s3fs.S3FileSystem.clear_instance_cache()


def stored(server: str, kind: str, bucket: str, folder: Path, count: int = 9) -> tuple[str, dict[str, bytes]]:
    """Pictures in a bucket, packed as a kind says; the URL, and the pictures by name."""
    pictures = pictures_in(paint_folder(folder / "loose", count))
    place = folder / "loose" if kind == "folder" else pack(kind, pictures, folder / kind)
    upload(server, bucket, place, "in/here/")
    return f"s3://{bucket}/in/here", pictures


def read_all(source: Source) -> dict[str, bytes]:
    return {ref.name or ref.key: source.read(ref.key) for ref in source.images()}


@pytest.mark.parametrize("kind", ALL)
def test_rows_are_those_of_the_folder_and_no_secret_is_written(
    kind: str, server: str, proxy: Proxy, ram_path: Path
) -> None:
    url, _ = stored(server, kind, f"rows-{kind}", ram_path)
    benches = [Bench(ram_path / "w0", ram_path / "loose"), Bench(ram_path / "w1", url, opener=recognised)]  # type: ignore[arg-type]
    found = []
    for bench in benches:
        bench.masks()
        bench.captions()
        check_whole(bench.work, "captions")
        found.append([row["caption"] for row in rows(bench.work, "captions")])
        found.append([row["rle_counts"] for row in rows(bench.work, "masks")])
    assert found[:2] == found[2:]
    assert benches[1].masks().nothing_to_do
    for path in benches[1].work.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes()
            assert KEY.encode() not in path.read_bytes()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("fault", ["stall", "reset", "short", "cut", "503"])
def test_a_server_that_stumbles_is_asked_again(
    kind: str, fault: Fault, server: str, proxy: Proxy, tmp_path: Path
) -> None:
    url, pictures = stored(server, kind, f"stumbles-{kind}", tmp_path)
    proxy.stalled = 1.5
    proxy.faults = [fault, fault]
    assert read_all(registry.open_source(registry.describe(url, {}, None))) == pictures
    assert not proxy.faults


@pytest.mark.parametrize("kind", ALL)
def test_a_server_that_stays_away_stops_the_run_and_the_next_goes_on(
    kind: str, server: str, proxy: Proxy, ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "BLOCK", 64)
    monkeypatch.setattr(remote, "PIECE", 64)
    monkeypatch.setattr(retrying, "ATTEMPTS", 2)
    url, _ = stored(server, kind, f"away-{kind}", ram_path)
    bench = Bench(ram_path / "work", url, opener=recognised, decode_ahead=1)  # type: ignore[arg-type]
    bench.workspace.create()
    bench.workspace.plan().extend(recognised(url, bench.work / registry.INDEX).images(), 2)  # type: ignore[arg-type]
    proxy.ranges.clear()
    enough = 60 if kind == "parquet" else 12  # opening Parquet files reads their ends first
    proxy.always = lambda path: "reset" if len(proxy.ranges) > enough else None
    with pytest.raises(EnvironmentStop, match=r"cannot be read.*committed work is kept"):
        bench.masks()
    kept = len(bench.workspace.latest("masks").manifest().entries)
    assert kept < 5
    proxy.always = lambda path: None
    assert bench.masks().parts == 5 - kept
    check_whole(bench.work, "masks")
    assert {one.status for one in outcomes(bench.work, "masks").values()} == {"done", "empty", "failed"}


def test_answers_that_stay_short_fail_their_own_picture(
    server: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "ATTEMPTS", 2)
    url, pictures = stored(server, "folder", "short", tmp_path)
    source = registry.open_source(registry.describe(url, {}, None))
    proxy.always = lambda path: "short" if "002" in path else None
    assert source.read("001.png") == pictures["001.png"]
    with pytest.raises(OSError, match="sent too few bytes"):
        source.read("002.png")


@pytest.mark.parametrize("kind", ALL)
def test_what_changed_and_what_vanished(kind: str, server: str, proxy: Proxy, ram_path: Path) -> None:
    url, _ = stored(server, kind, f"changes-{kind}", ram_path, 8)
    place = ram_path / kind if kind in KINDS else ram_path / "loose"
    bench = Bench(ram_path / "work", url, opener=recognised)  # type: ignore[arg-type]
    bench.masks()
    paint(ram_path / "loose" / "006.png", 77)
    if kind in KINDS:
        pack(kind, pictures_in(ram_path / "loose"), place)
    upload(server, f"changes-{kind}", place, "in/here/")
    assert bench.masks().parts == 1
    first = {"folder": "000.png", "webdataset": "00000.tar", "parquet": "data/train-00000-of-00003.parquet"}[kind]
    source = recognised(url, bench.work / registry.INDEX)  # type: ignore[arg-type]
    keys = [ref.key for ref in source.images()]
    delete(server, f"/changes-{kind}/in/here/{first}")
    again = recognised(url, bench.work / registry.INDEX)  # type: ignore[arg-type]
    assert again.stamp(keys[0]) is None
    for one in (source, again):
        with pytest.raises(FileNotFoundError):
            one.read(keys[0])
    assert bench.masks().nothing_to_do
    put(server, f"/changes-{kind}/in/here/{first}", (place / first).read_bytes())
    assert replace(bench).masks().nothing_to_do


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_read_once_ahead_and_in_blocks(
    kind: str, server: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "BLOCK", 256)
    url, pictures = stored(server, kind, f"blocks-{kind}", tmp_path, 40)
    described = registry.describe(url, {}, None)
    source = registry.open_source(described, tmp_path / "index")
    refs = list(source.images())
    proxy.ranges.clear()
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(3) as pool:
        found = dict(zip([ref.name for ref in refs], pool.map(lambda ref: again.read(ref.key), refs), strict=True))
    assert found == pictures
    data = [one for one in proxy.ranges if one[1]]
    assert len(data) == len(set(data)) or kind == "parquet"  # a Parquet file's footer is read for each row group


def test_who_asks_for_one_image_reads_one_tar(server: str, proxy: Proxy, tmp_path: Path) -> None:
    url, _ = stored(server, "webdataset", "one", tmp_path)
    source = registry.open_source(registry.describe(url, {}, None))
    assert next(iter(source.images())).key == "00000.tar/000.png"
    assert {path for path, _ in proxy.ranges} == {"/one/in/here/00000.tar"}
    assert len(list(source.images())) == 9


def test_patterns_files_and_addresses_that_lead_nowhere(server: str, proxy: Proxy, tmp_path: Path) -> None:
    url, pictures = stored(server, "webdataset", "patterns", tmp_path)
    for images in (f"{url}/{{00000..00002}}.tar", f"{url}/*.tar", f"{url}/0000[0-2].tar", f"{url}/"):
        assert read_all(registry.open_source(registry.describe(images, {}, None))) == pictures
    one = registry.open_source(registry.describe(f"{url}/00001.tar", {}, None))
    assert [ref.key for ref in one.images()] == [f"00001.tar/{n:03}.png" for n in range(4, 8)]
    with pytest.raises(UsageError, match="there is nothing at"):
        registry.describe("s3://patterns/elsewhere", {}, None)
    with pytest.raises(UsageError, match=r"stands for no tar|there is nothing"):
        registry.describe(f"{url}/*.zip", {}, None)
    missing = registry.open_source(registry.describe(f"{url}/{{00001..00004}}.tar", {}, None))
    assert len(list(missing.images())) == 5
    assert getattr(missing, "left_out").kinds["files that the pattern names and that are not there"]["count"] == 2  # noqa: B009


@pytest.mark.parametrize(
    "url",
    [
        "https://me:word@host/a.tar",
        "s3://key:word@bucket/a.tar",
        "https://host/a.tar?X-Amz-Signature=1",
        "http://host/{0..1}.tar?sig=2",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="may hold a secret") as refused:
        registry.describe(url, {}, None)
    assert "word" not in str(refused.value).replace("password", "")
    assert "Signature" not in str(refused.value)


def test_kinds_that_read_no_urls_say_so(tmp_path: Path) -> None:
    description = {"kind": "coco", "root": "s3://bucket/instances.json", "options": {}, "image_root": None}
    with pytest.raises(UsageError, match="reads no URLs"):
        registry.open_source(description)
    with pytest.raises(UsageError, match="no file system for nonsense://"):
        registry.describe("nonsense://bucket/a.tar", {}, None)


def test_the_command_takes_an_address(server: str, proxy: Proxy, tmp_path: Path) -> None:
    from invoking import invoke

    url, _ = stored(server, "webdataset", "command", tmp_path)
    done = invoke("masks", "--work", tmp_path / "work", "--images", f"{url}/nothing", "--profile", "demo", "--json")
    assert (done.code, "there is nothing at s3://command" in done.stderr) == (2, True)
    trial = ("--profile", "random", "--device", "cpu", "--pilot", "2", "--json")
    done = invoke("masks", "--work", tmp_path / "work", "--images", url, *trial)
    assert json.loads(done.stdout)["stages"][0]["counts"]
    assert json.loads((tmp_path / "work" / "source.json").read_text())["root"] == url


def test_loose_pictures_that_are_expected_are_fetched_before_they_are_read(
    server: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each once, many at a time; one that failed fails who reads it and may be asked for again; memory has a bound."""
    monkeypatch.setattr(folder, "MOST_EXPECTED", 7)
    monkeypatch.setattr(retrying, "ATTEMPTS", 1)
    url, pictures = stored(server, "folder", "expected", tmp_path)
    source = registry.open_source(registry.describe(url, {}, None))
    assert isinstance(source, folder.RemoteFolder)
    proxy.ranges.clear()
    proxy.always = lambda path: "503" if "003" in path else None
    for key in [*pictures][:7]:
        source.expect(key)
    wait([*source._expected.values()], 20)
    source.expect("000.png")
    asked = [path[-7:] for path, _ in proxy.ranges if "003" not in path]  # that one is asked for again by its library
    assert sorted(asked) == [key for key in pictures if key < "007" and key[:3] != "003"], (
        "fetched, though nobody has read"
    )
    assert {key: source.read(key) for key in ("002.png", "000.png")} == {
        key: pictures[key] for key in ("002.png", "000.png")
    }
    with pytest.raises(EnvironmentStop):
        source.read("003.png")
    proxy.always = lambda path: None
    assert source.read("003.png") == pictures["003.png"]
    assert len({path for path, _ in proxy.ranges}) == 7
    source.expect("gone.png")
    with pytest.raises(FileNotFoundError):
        source.read("gone.png")
    for key in pictures:
        source.expect(key)
    assert len(source._expected) == 7
    assert {key: source.read(key) for key in reversed(pictures)} == pictures


def test_what_nobody_has_listed_may_be_expected(
    server: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that braces name are looked for by the threads that fetch: those must not wait for it."""
    monkeypatch.setattr(remote, "MOST_AHEAD", 2)
    url, pictures = stored(server, "folder", "unlisted", tmp_path)
    source = registry.open_source(registry.describe(f"{url}/{{000..008}}.png", {}, None))
    again = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(3) as pool:
        for key in pictures:
            again.expect(key)
        assert dict(zip(pictures, pool.map(again.read, pictures), strict=True)) == pictures


def test_a_large_loose_picture_is_asked_for_in_pieces(
    server: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, pictures = stored(server, "folder", "pieces", tmp_path)
    source = registry.open_source(registry.describe(url, {}, None))
    monkeypatch.setattr(remote, "PIECE", len(pictures["001.png"]) - 1)
    proxy.ranges.clear()
    assert source.read("001.png") == pictures["001.png"]
    assert len(proxy.ranges) == 2
