"""The journal: what was written is found again, a torn line costs itself only, and waiting times are those asked for."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest

from pseudoris_cli.endpoint import failures, journal
from pseudoris_cli.endpoint.address import Address
from pseudoris_cli.endpoint.asking import Request
from pseudoris_cli.endpoint.failures import RequestFailed, asked_wait, from_status, reason_of, wait_before
from pseudoris_cli.errors import EnvironmentStop, UsageError

HERE = Address("http://x/v1", "secret-key", "KEY")


def test_answers_are_found_again_also_after_a_torn_line(tmp_path: Path) -> None:
    path = journal.journal_path(tmp_path, "main")
    first = journal.Journal(path)
    for number in range(40):
        first.add(f"r{number}", {"text": f"ä {number}"})
    assert len(journal.Journal(path).known) == 40, "it is on the disk before it is closed"
    first.close()
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    second = journal.Journal(path)
    assert len(second.known) == 39
    second.add("r39", {"text": "again"})
    second.close()
    third = journal.Journal(path)
    assert third.get("r39") == {"text": "again"}
    assert third.get("r0") == {"text": "ä 0"}
    journal.discard(tmp_path, "main")
    journal.discard(tmp_path, "main")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path: Path, small_disk) -> None:
    place = small_disk("size=16k")
    kept = journal.Journal(journal.journal_path(place, "main"))

    def fill() -> None:
        for number in range(200):
            kept.add(str(number), {"text": "x" * 500})

    with pytest.raises(EnvironmentStop, match="the disk is full"):
        fill()


def test_a_request_is_identified_by_all_that_is_sent() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "seed": 1}
    changes: list[dict] = [{}, {"seed": 2}, {"model": "n"}, {"messages": []}]
    assert len({Request.of(body | change).digest for change in changes}) == 4
    assert Request.of(dict(body)) == Request.of(body)
    schema = {"properties": {"text": 1, "kind": 2}}
    assert b'"text":1,"kind":2' in Request.of(schema).data, "the order of a schema's fields is the server's business"


def test_waiting() -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert asked_wait({"retry-after": "7"}) == 7
    assert asked_wait({"retry-after": date}) == pytest.approx(30, abs=2)
    assert asked_wait({"retry-after-ms": "250"}) == 0.25
    assert [asked_wait({"retry-after": bad}) for bad in ("soon", "nan", "", "-5")] == [None, None, None, 0.0]
    assert wait_before(1, None) < wait_before(4, None) < wait_before(7, None) <= failures.LONGEST_WAIT * 1.25
    assert 7 <= wait_before(3, 7) <= 7.4


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "bad secret-key"}}, UsageError),
        (403, "forbidden", UsageError),
        (402, {}, EnvironmentStop),
        (429, {"error": {"code": "insufficient_quota"}}, EnvironmentStop),
        (429, {}, RequestFailed),
        (500, "<html>", RequestFailed),
        (400, {"detail": [{"msg": "too long"}]}, RequestFailed),
    ],
)
def test_statuses(status: int, body: object, kind: type) -> None:
    found = from_status(status, body, {}, HERE)
    assert isinstance(found, kind)
    assert "secret-key" not in str(found)
    if isinstance(found, RequestFailed):
        assert found.again == (status in (429, 500))


def test_reasons_are_one_line() -> None:
    assert reason_of({"detail": [{"msg": "too\nlong"}]}) == "too long"
    assert reason_of({"error": "x" * 500}).endswith("...")
    assert reason_of("<html><body>bad</body>") == ""
    assert reason_of(None) == ""
    assert "secret-key" not in repr(HERE)
