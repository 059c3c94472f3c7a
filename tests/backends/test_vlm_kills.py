"""Kills and stops with requests in flight: answers that came are not asked for again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from invoking import rows_of
from vlm_proxy import Fault, Proxy
from vlm_work import caption, draw_work, journal, start, wait_until


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_with_requests_in_flight_does_not_wait_for_answers(
    sign: signal.Signals, tmp_path: Path, vlm_proxy: Proxy
) -> None:
    draw_work(tmp_path, 2, vlm_proxy.url, concurrency=4)
    vlm_proxy.always = lambda body: Fault(delay=20) if len(vlm_proxy.real()) > 2 else None
    process = start("captions", tmp_path)
    wait_until(lambda: sum(vlm_proxy.digests.values()) == 2 and vlm_proxy.in_flight >= 2)
    time.sleep(0.3)
    asked = time.monotonic()
    process.send_signal(sign)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10, "half of what the answers would take; about a second on a machine of its own"
    assert process.returncode == 130
    assert "what was answered is kept" in err
    assert "Traceback" not in err
    assert len(journal(tmp_path)) == 1
    vlm_proxy.always = lambda body: None
    before = len(vlm_proxy.real())
    assert caption(tmp_path).code == 0
    assert len(vlm_proxy.real()) - before == 4, "answers of the journal are not asked for again"
    assert journal(tmp_path) == []


@pytest.mark.slow
def test_twenty_kills_lose_no_answer(tmp_path: Path, vlm_proxy: Proxy) -> None:
    """Killed at random moments; at the end the rows are those of an unbroken run, and no answered request was sent again."""
    import random

    (tmp_path / "unbroken").mkdir()
    draw_work(tmp_path / "unbroken" / "run", 8, vlm_proxy.url, part_size=2, concurrency=2)
    assert caption(tmp_path / "unbroken" / "run").code == 0
    wanted = rows_of(tmp_path / "unbroken" / "run" / "work", "captions")
    vlm_proxy.asked.clear()
    vlm_proxy.digests.clear()
    draw_work(tmp_path / "killed", 8, vlm_proxy.url, part_size=2, concurrency=2)
    vlm_proxy.always = lambda body: Fault(delay=0.25)
    rng, kills = random.Random(18), 0
    while kills < 20:
        process = start("captions", tmp_path / "killed")
        seen = len(vlm_proxy.real())
        more = rng.randrange(3)
        wait_until(
            lambda seen=seen, more=more, process=process: (
                len(vlm_proxy.real()) > seen + more or process.poll() is not None
            )
        )
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.communicate()
        kills += 1
        if process.returncode == 0:
            break
    vlm_proxy.always = lambda body: None
    done = caption(tmp_path / "killed")
    assert done.code == 0, done.stderr
    assert rows_of(tmp_path / "killed" / "work", "captions") == wanted
    assert journal(tmp_path / "killed") == []
    # an answer that the proxy sent may not have been read before the kill: it alone may come twice, and never for a committed row
    twice = sum(count - 1 for count in vlm_proxy.digests.values())
    assert twice <= kills * 2, "more answers were lost than were in flight"
    assert max(vlm_proxy.digests.values()) <= 3


def test_nothing_is_asked_again_after_a_kill_between_requests(tmp_path: Path, vlm_proxy: Proxy) -> None:
    """Answers are read one by one and the process is killed while the next is under way: what was answered stays answered."""
    draw_work(tmp_path, 2, vlm_proxy.url, concurrency=1)
    for _ in range(3):
        done = sum(vlm_proxy.digests.values())
        hold = len(vlm_proxy.real()) + 1
        vlm_proxy.always = lambda body, hold=hold: Fault(delay=30, cut=True) if len(vlm_proxy.real()) > hold else None
        process = start("captions", tmp_path)
        wait_until(lambda hold=hold: len(vlm_proxy.real()) > hold)
        process.kill()
        process.communicate()
        assert sum(vlm_proxy.digests.values()) == done + 1
    vlm_proxy.always = lambda body: None
    assert caption(tmp_path).code == 0
    assert set(vlm_proxy.digests.values()) == {1}
    assert len(vlm_proxy.digests) == 6
