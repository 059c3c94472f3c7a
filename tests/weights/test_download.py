"""One file over HTTP, against a local server that misbehaves."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from flaky_server import Answer, FlakyServer, serve

from pseudoris_cli.errors import EnvironmentStop, MissingDependency
from pseudoris_cli.weights import download as module
from pseudoris_cli.weights.download import Remote, Reporter, RetryPolicy, download

CONTENT = bytes(range(256)) * 5000  # 1.28 MB: more than one block
DIGEST = hashlib.sha256(CONTENT).hexdigest()
QUICK = RetryPolicy(timeout=0.3, attempts=3, pause=0.001, longest_pause=0.01)


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(server: FlakyServer, target: Path, known: bool = True, **options: object) -> str:
    remote = Remote(f"{server.url}/file", len(CONTENT) if known else None, DIGEST if known else None)
    return download(remote, target, retry=QUICK, **options)  # type: ignore[arg-type]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetches_and_leaves_only_the_file(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serve(CONTENT) as server:
        digest = get(server, tmp_path / "w.pth", reporter=Reporter(lambda done, total: seen.append((done, total))))
    assert digest == DIGEST
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["w.pth"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    "fault", [Answer(cut=400_000), Answer(stall=400_000), Answer(cut=0), Answer(status=500), Answer(status=429)]
)
def test_goes_on_after_a_fault(tmp_path: Path, fault: Answer, known: bool) -> None:
    notices: list[str] = []
    with serve(CONTENT, fault) as server:
        assert get(server, tmp_path / "w.pth", known, reporter=Reporter(notice=notices.append)) == DIGEST
    kept = fault.cut or fault.stall
    assert [wanted for _, wanted in server.requests] == [None, f"bytes={kept}-" if kept else None]
    assert len(notices) == 1
    assert "trying again" in notices[0]


def test_many_short_pieces_are_progress_not_failures(tmp_path: Path) -> None:
    pieces = [Answer(cut=100_000)] * 8  # more faults than attempts
    with serve(CONTENT, *pieces) as server:
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert len(server.requests) == 9


def test_a_server_that_ignores_ranges_and_always_breaks_off_is_given_up(tmp_path: Path) -> None:
    pieces = [Answer(cut=100_000, ranges=False)] * 50
    with serve(CONTENT, *pieces) as server, pytest.raises(EnvironmentStop, match="3 times in a row"):
        get(server, tmp_path / "w.pth")
    assert len(server.requests) == 3
    assert leftovers(tmp_path) == ["w.pth.part", "w.pth.part.validator"]


def test_a_server_that_ignores_ranges_is_read_from_the_start(tmp_path: Path) -> None:
    with serve(CONTENT, Answer(cut=400_000), Answer(ranges=False)) as server:
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_wrong_range_is_not_appended(tmp_path: Path) -> None:
    with serve(CONTENT, Answer(cut=400_000), Answer(shift=10)) as server:
        assert get(server, tmp_path / "w.pth", known=False) == DIGEST


def test_the_next_run_goes_on_from_the_part(tmp_path: Path) -> None:
    target = tmp_path / "w.pth"
    with serve(CONTENT, Answer(cut=900_000), *[Answer(status=503)] * 3) as server:
        with pytest.raises(EnvironmentStop, match=r"900\.0 kB are kept"):
            get(server, target)
        assert not target.exists()
        assert get(server, target) == DIGEST
    assert server.requests[-1][1] == "bytes=900000-"


def test_an_unknown_file_is_continued_only_if_the_server_still_has_the_same(tmp_path: Path) -> None:
    target = tmp_path / "w.pth"
    with serve(CONTENT, Answer(cut=900_000), *[Answer(status=503)] * 3) as server:
        with pytest.raises(EnvironmentStop):
            get(server, target, known=False)
        server.content, server.etag = CONTENT[::-1], '"v2"'
        assert get(server, target, known=False) == hashlib.sha256(CONTENT[::-1]).hexdigest()


def test_an_unknown_file_without_validator_starts_over(tmp_path: Path) -> None:
    target = tmp_path / "w.pth"
    (tmp_path / "w.pth.part").write_bytes(b"of who knows what")
    with serve(CONTENT) as server:
        server.etag = None
        assert get(server, target, known=False) == DIGEST
    assert server.requests == [("/file", None)]


def test_a_part_that_does_not_fit_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(b"x" * 1000)
    with serve(CONTENT) as server:
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("surplus", [0, 7])
def test_a_part_as_long_as_the_file_or_longer(tmp_path: Path, surplus: int) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT + b"y" * surplus)
    with serve(CONTENT) as server:
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert len(server.requests) == (1 if surplus else 0)


def test_a_complete_part_of_unknown_size_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT)
    with serve(CONTENT) as server:
        assert download(Remote(f"{server.url}/file", None, DIGEST), tmp_path / "w.pth", retry=QUICK) == DIGEST
    assert server.requests == [("/file", f"bytes={len(CONTENT)}-")]


def test_wrong_bytes_are_not_kept(tmp_path: Path) -> None:
    with (
        serve(CONTENT, Answer(body=CONTENT[:-1] + b"?")) as server,
        pytest.raises(MissingDependency, match="another file than the one expected"),
    ):
        get(server, tmp_path / "w.pth")
    assert leftovers(tmp_path) == []


def test_wrong_bytes_leave_an_older_file_alone(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"older")
    with serve(CONTENT, Answer(body=CONTENT[::-1])) as server, pytest.raises(MissingDependency):
        get(server, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == b"older"


def test_a_file_of_another_size_is_not_fetched(tmp_path: Path) -> None:
    with serve(b"short") as server, pytest.raises(MissingDependency, match="offers a file of 5 bytes"):
        get(server, tmp_path / "w.pth")
    assert leftovers(tmp_path) == []


def test_a_web_page_is_not_a_checkpoint(tmp_path: Path) -> None:
    page = Answer(body=b"<html>log in</html>", content_type="text/html; charset=utf-8")
    with serve(CONTENT, page) as server, pytest.raises(MissingDependency, match="web page"):
        get(server, tmp_path / "w.pth", known=False)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, status: int) -> None:
    with serve(CONTENT, Answer(status=status)) as server, pytest.raises(MissingDependency, match=str(status)) as caught:
        get(server, tmp_path / "w.pth")
    assert str(tmp_path / "w.pth") in str(caught.value)
    assert len(server.requests) == 1


def test_follows_redirects_with_the_range(tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").write_bytes(CONTENT[:500])
    with serve(CONTENT) as server:
        server.answers = [Answer(status=302, headers=(("Location", f"{server.url}/elsewhere"),))]
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert server.requests == [("/file", "bytes=500-"), ("/elsewhere", "bytes=500-")]


def test_a_body_of_unknown_length_is_checked_by_size(tmp_path: Path) -> None:
    with serve(CONTENT, Answer(length=False, cut=400_000), Answer(length=False)) as server:
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert len(server.requests) == 2


def test_nobody_listens(tmp_path: Path) -> None:
    with serve(CONTENT) as server:
        pass
    with pytest.raises(EnvironmentStop, match="the connection failed"):
        get(server, tmp_path / "w.pth")


def test_waits_as_long_as_the_server_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    with serve(CONTENT, Answer(status=503, headers=(("Retry-After", "7"),)), Answer(status=503)) as server:
        download(Remote(f"{server.url}/file"), tmp_path / "w.pth", retry=RetryPolicy(timeout=5, attempts=9))
    assert waits == [7.0, 2.0]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.pth.part").symlink_to("/dev/full")
    with serve(CONTENT) as server, pytest.raises(EnvironmentStop, match="disk is full"):
        get(server, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


def test_too_little_room_is_seen_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with serve(CONTENT) as server, pytest.raises(EnvironmentStop, match=r"1\.3 MB more are needed, 1\.0 kB are free"):
        get(server, tmp_path / "w.pth")


def test_an_interrupt_keeps_the_part(tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        if done:
            raise KeyboardInterrupt

    with serve(CONTENT) as server:
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path / "w.pth", reporter=Reporter(stop))
        assert leftovers(tmp_path) == ["w.pth.part", "w.pth.part.validator"]
        assert get(server, tmp_path / "w.pth") == DIGEST
    assert server.requests[1][1] is not None
