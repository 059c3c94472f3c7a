"""A listener's server in trouble, kills between questions and stops: nothing is lost, nothing is asked twice."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from invoking import rows_of
from judge_work import TEXTS, draw_judge_work, judge, judge_notes
from vlm_proxy import Fault, Proxy
from vlm_work import journal, start, wait_until

VOTES = {"mode": "vote", "votes": 2, "temperature": 0.1}


@pytest.mark.parametrize("judged", [{}, VOTES], ids=["decisions", "votes"])
def test_passing_trouble_is_tried_again(judged: dict, tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_judge_work(tmp_path, 1, vlm_proxy.url, **judged | {"retries": 6, "concurrency": 1})
    busy = Fault(status=429, headers=(("Retry-After", "0"),))
    vlm_proxy.faults = [busy, Fault(status=500), Fault(cut=True), Fault(status=200, body=b"<html>gateway</html>")]
    done = judge(tmp_path)
    assert done.code == 0, done.stderr
    [note] = judge_notes(tmp_path)
    assert note["requests"]["retries"] >= 4
    assert note["judge"]["answered"] == note["judge"]["asked"] == 3 * len(TEXTS)
    assert "failed_masks" not in note


STOPS: dict[str, tuple[Fault, int, str]] = {
    "key": (Fault(status=401, body=b'{"error": {"message": "Incorrect API key"}}'), 2, "OPENAI_API_KEY"),
    "quota": (Fault(status=429, body=b'{"error": {"code": "insufficient_quota", "message": "quota"}}'), 1, "quota"),
    "busy for ever": (Fault(status=429, headers=(("Retry-After", "0"),)), 1, "filter.judge.concurrency"),
    "gateway": (Fault(status=503, headers=(("Retry-After", "0"),)), 1, "not available"),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_does_not_pass_stops_with_one_clear_message(name: str, tmp_path: Path, vlm_proxy: Proxy) -> None:
    """The first part is committed and kept; of the second nothing is."""
    fault, code, words = STOPS[name]
    draw_judge_work(tmp_path, 2, vlm_proxy.url, part_size=1, masks=1, **VOTES | {"retries": 1})
    of_a_part = len(TEXTS) * 2
    vlm_proxy.always = lambda body: fault if len(vlm_proxy.real()) > of_a_part else None
    done = judge(tmp_path)
    assert done.code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    assert len(judge_notes(tmp_path)) == 1
    vlm_proxy.always = lambda body: None
    before = len(vlm_proxy.real())
    assert judge(tmp_path).code == 0
    assert len(vlm_proxy.real()) - before <= of_a_part, "what was committed is not asked again"
    assert len(rows_of(tmp_path / "work", "judge")) == 2 * len(TEXTS)


def test_nothing_usable_stops_the_run(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_judge_work(tmp_path, 2, vlm_proxy.url, **VOTES)
    vlm_proxy.always = lambda body: Fault(text="I cannot help with that.") if body in vlm_proxy.real() else None
    done = judge(tmp_path)
    assert done.code == 1
    assert "questions got a usable answer" in done.stderr
    assert "I cannot help" in done.stderr
    assert "filter.judge.mode" in done.stderr
    assert judge_notes(tmp_path) == []


def test_a_refused_question_is_the_failure_of_its_mask(tmp_path: Path, vlm_proxy: Proxy) -> None:
    """The others have their answers; it is asked again when asked for, and only it."""
    draw_judge_work(tmp_path, 2, vlm_proxy.url, **VOTES | {"concurrency": 1})
    vlm_proxy.faults = [Fault(status=400, body=b'{"error": {"message": "content filter"}}')]
    done = judge(tmp_path)
    assert done.code == 0, done.stderr
    [note] = judge_notes(tmp_path)
    [(key, masks)] = note["failed_masks"].items()
    [(mask, why)] = masks.items()
    assert "content filter" in why
    first = rows_of(tmp_path / "work", "judge")
    [silent] = [row for row in first if row["listener"] == "nan"]
    assert (silent["image_key"], silent["mask_id"]) == (key, int(mask))
    assert {row["reason"] for row in rows_of(tmp_path / "work", "filter")} >= {"not asked"}
    before = len(vlm_proxy.real())
    assert judge(tmp_path, "--retry-failed").code == 0
    assert len(vlm_proxy.real()) - before == 2, "finished rows are never asked again"
    second = rows_of(tmp_path / "work", "judge")
    kept = {row["caption"]: row["listener"] for row in first if row is not silent}
    assert kept == {row["caption"]: row["listener"] for row in second if row["caption"] != silent["caption"]}
    assert not [row for row in second if row["listener"] == "nan"]
    assert "failed_masks" not in judge_notes(tmp_path)[0]


def test_an_image_of_which_no_question_is_answered_has_failed(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_judge_work(tmp_path, 2, vlm_proxy.url, permutations=1)
    vlm_proxy.faults = [Fault(status=400, body=b'{"error": {"message": "too large"}}')]
    done = judge(tmp_path)
    assert done.code == 4
    assert len({row["image_key"] for row in rows_of(tmp_path / "work", "judge")}) == 1
    assert judge(tmp_path, "--retry-failed").code == 0
    assert {row["image_key"] for row in rows_of(tmp_path / "work", "judge")} == {"000.png", "001.png"}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_with_questions_in_flight_does_not_wait_for_answers(
    sign: signal.Signals, tmp_path: Path, vlm_proxy: Proxy
) -> None:
    draw_judge_work(tmp_path, 1, vlm_proxy.url, **VOTES | {"concurrency": 2})
    vlm_proxy.always = lambda body: Fault(delay=20) if len(vlm_proxy.real()) > 4 else None
    process = start("filter", tmp_path)
    wait_until(lambda: sum(vlm_proxy.digests.values()) == 4 and vlm_proxy.in_flight >= 2, 90)
    time.sleep(0.3)
    asked = time.monotonic()
    process.send_signal(sign)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 10, "half of what the answers would take; about a second on a machine of its own"
    assert process.returncode == 130
    assert "what was answered is kept" in err
    assert "Traceback" not in err
    [kept] = journal(tmp_path)
    answers = len(kept.read_bytes().splitlines())  # votes that name no answer are not kept
    assert 1 <= answers <= 4
    vlm_proxy.always = lambda body: None
    before = len(vlm_proxy.real())
    assert judge(tmp_path).code == 0
    assert len(vlm_proxy.real()) - before == 3 * len(TEXTS) * 2 - answers, (
        "answers of the journal are not asked for again"
    )
    assert journal(tmp_path) == []


@pytest.mark.parametrize("judged", [{"permutations": 3}, VOTES], ids=["decisions", "votes"])
def test_nothing_is_asked_again_after_a_kill_between_questions(judged: dict, tmp_path: Path, vlm_proxy: Proxy) -> None:
    masks = 3 if "permutations" in judged else 1
    draw_judge_work(tmp_path, 1, vlm_proxy.url, masks=masks, **judged | {"concurrency": 1})
    for _ in range(2):
        done = sum(vlm_proxy.digests.values())
        hold = len(vlm_proxy.real()) + 1
        vlm_proxy.always = lambda body, hold=hold: Fault(delay=30, cut=True) if len(vlm_proxy.real()) > hold else None
        process = start("filter", tmp_path)
        wait_until(lambda hold=hold: len(vlm_proxy.real()) > hold, 90)
        process.kill()
        process.communicate()
        assert sum(vlm_proxy.digests.values()) == done + 1
    vlm_proxy.always = lambda body: None
    assert judge(tmp_path).code == 0
    assert set(vlm_proxy.digests.values()) == {1}
    assert len(vlm_proxy.digests) == (3 if "permutations" in judged else 2 * len(TEXTS))
