"""A listener behind an endpoint, in every mode: the real `transformers serve`, and a server with logits."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from invoking import invoke, rows_of
from judge_work import TEXTS, draw_judge_work, judge, judge_notes, write_judge_config
from vlm_proxy import Fault, Proxy, misbehaving
from vlm_work import common, journal

CANARY = "canary-77aa0c1e-secret"
EXPRESSIONS = 2 * 3 * len(TEXTS)
"""Of two images with three masks."""


def picture_of(body: dict) -> str:
    if "assets" in body:
        [asset] = body["assets"].values()
        return asset["data_base64"]
    [part] = [part for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    return part["image_url"]["url"].partition(",")[2]


@pytest.mark.parametrize(
    ("server", "wanted", "mode", "requests"),
    [
        ("vlm_server", {}, "systemone", 2 * 2),
        ("logits_server", {}, "logprobs", 2 * EXPRESSIONS),
        ("vlm_server", {"mode": "vote", "votes": 3, "temperature": 0.1}, "vote", 3 * EXPRESSIONS),
        ("logits_server", {"mode": "vote", "votes": 3}, "vote", 3 * EXPRESSIONS),
    ],
    ids=["decisions", "logprobs", "votes", "votes held to a choice"],
)
def test_every_mode_hears_every_expression(
    server: str, wanted: dict, mode: str, requests: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with misbehaving(request.getfixturevalue(server)) as proxy:
        draw_judge_work(tmp_path, 2, proxy.url, **wanted)
        done = judge(tmp_path)
        assert done.code == 0, done.stderr
        assert f"asked by {mode}" in done.stderr
        real = proxy.real()
        before = len(proxy.asked)
        assert "nothing to do" in judge(tmp_path).stdout
        assert len(proxy.asked) == before, "a finished part asks nothing, not even what the server can do"
    [note] = judge_notes(tmp_path)
    assert note["resolved"] == {"mode": mode}
    assert note["device"] == "endpoint"
    assert note["requests"]["requests"] == len(real) == requests
    assert note["judge"]["asked"] == note["judge"]["answered"] == EXPRESSIONS
    numberings = 2 if mode != "vote" else 3
    assert len({picture_of(body) for body in real}) == 2 * numberings, (
        "one picture an image and numbering: no target shows"
    )
    asked = json.dumps(real)
    assert all(f"{text} {image}{mask}" in asked for text in TEXTS for image in range(2) for mask in range(3))
    rows = rows_of(tmp_path / "work", "judge")
    assert len(rows) == EXPRESSIONS
    for row in rows:
        heard = [float(row[name]) for name in ("listener", "listener_best_other", "listener_none")]
        assert min(heard) > 0
        assert sum(heard) <= 1.0001
        assert row["listener_shown"] == [0, 1, 2]
    assert len({row["listener"] for row in rows}) > (1 if mode == "vote" else 3), (
        "answers differ with expression and mask"
    )
    assert journal(tmp_path) == []


def test_probabilities_are_those_of_the_numbering(tmp_path: Path, logits_server: str) -> None:
    """With one numbering the columns are what the server's own alternatives say of the mask with that number."""
    from lineups import image

    from pseudoris_cli.backends import listener_vlm
    from pseudoris_cli.method.protocols import Lineup
    from pseudoris_cli.prompting.questions import Question, read_alternatives, token_labels
    from pseudoris_cli.settings.models import Numerics

    with misbehaving(logits_server) as proxy:
        settings = listener_vlm.Settings(endpoint=proxy.url, max_side=64)
        listener = listener_vlm.load(settings, Numerics(), "elsewhere")
        one = image(3)
        [found] = listener.listen([Lineup("a", one.image_rgb, one.masks, ("the red box", "a box"))])
        answers = [listener.client.wait_for(listener.client.post("/chat/completions", body)) for body in proxy.real()]
    labels = token_labels(Question("", 3))
    expected = [read_alternatives(answer["choices"][0]["logprobs"], labels) for answer in answers]
    order = ["the red box" in json.dumps(body) for body in proxy.real()[:2]]
    assert np.allclose(found[0], expected[order.index(True)], atol=1e-5)
    assert np.allclose(found[1], expected[order.index(False)], atol=1e-5)
    assert not np.allclose(found[0], found[1], atol=1e-4)


def test_votes_have_numbers_of_their_own_and_are_read_back(tmp_path: Path, vlm_server: str) -> None:
    """A server that always takes number 1 says nothing of any mask, if the numbers are dealt anew each time."""
    with misbehaving(vlm_server) as proxy:
        draw_judge_work(tmp_path, 2, proxy.url, mode="vote", votes=12)
        proxy.always = lambda body: Fault(text="1") if body in proxy.real() else None
        assert judge(tmp_path).code == 0
    rows = rows_of(tmp_path / "work", "judge")
    assert max(float(row["listener"]) for row in rows) < 0.8
    assert {row["listener_none"] for row in rows} == {repr(float(np.float32(0.25 / 13)))}
    [note] = judge_notes(tmp_path)
    assert note["judge"]["none"] == 0


def test_more_masks_than_are_shown(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_judge_work(tmp_path, 1, vlm_proxy.url, max_marks=2)
    done = judge(tmp_path)
    assert done.code == 0, done.stderr
    rows = rows_of(tmp_path / "work", "judge")
    assert all(len(row["listener_shown"]) == 2 and row["mask_id"] in row["listener_shown"] for row in rows)
    assert len(vlm_proxy.real()) == 3 * 2
    assert all(
        set(q["criteria"]) == {"1", "2", "none"} for body in vlm_proxy.real() for q in body["questions"].values()
    )


def test_several_targets_and_none(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_judge_work(tmp_path, 2, vlm_proxy.url, multi=True, no_target_per_image=2)
    done = judge(tmp_path)
    assert done.code == 0, done.stderr
    kinds = Counter(q["type"] for body in vlm_proxy.real() for q in body["questions"].values())
    assert kinds == {"choice": 2 * EXPRESSIONS, "noul": 3 * EXPRESSIONS + 3 * 4}
    assert max(len(body["questions"]) for body in vlm_proxy.real()) == 16
    own = [row for row in rows_of(tmp_path / "work", "judge") if row["mask_id"] >= 0]
    assert all(set(row["listener_targets"]) <= {0, 1, 2} for row in own)


def test_a_mode_that_the_server_has_not(tmp_path: Path, vlm_server: str, logits_server: str) -> None:
    draw_judge_work(tmp_path, 1, vlm_server, mode="logprobs")
    done = judge(tmp_path)
    assert (done.code, "filter.judge.mode=logprobs" in done.stderr) == (2, True)
    write_judge_config(tmp_path, logits_server, mode="systemone")
    done = judge(tmp_path)
    assert (done.code, "takes no decisions about a picture" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def test_a_version_is_asked_in_one_way(tmp_path: Path, vlm_server: str, logits_server: str) -> None:
    """`auto` may come to another way with another server of the same model: that is said, not mixed."""
    draw_judge_work(tmp_path, 4, vlm_server, part_size=2, model="tiny-vlm")
    judge(tmp_path, "--shard", "0/2", "--allow-partial")
    assert len(judge_notes(tmp_path)) == 1
    with misbehaving(vlm_server) as proxy:
        proxy.always = lambda body: Fault(status=404) if "questions" in body else None
        write_judge_config(tmp_path, proxy.url, model="tiny-vlm")
        done = judge(tmp_path)
    assert done.code == 2
    assert "judged with mode systemone, and this server is asked by mode vote" in done.stderr


def test_a_picture_that_never_reaches_the_model_is_noticed(tmp_path: Path, vlm_server: str) -> None:
    """A server that takes the fields of a decision and answers without looking is not asked so."""
    draw_judge_work(tmp_path, 1, vlm_server, votes=2)
    with misbehaving(vlm_server) as blind:
        said = {"shown": {"type": "choice", "choice": "1", "probabilities": {"1": 0.5, "2": 0.3, "none": 0.2}}}
        answer = json.dumps({"answers": said}).encode()
        blind.always = lambda body: Fault(status=200, body=answer) if "questions" in body else None
        write_judge_config(tmp_path, blind.url, votes=2)
        done = judge(tmp_path)
        assert done.code == 0, done.stderr
        assert "asked by vote" in done.stderr


def test_the_version_holds_model_words_and_sampling_and_nothing_of_the_way(tmp_path: Path, vlm_server: str) -> None:
    from pseudoris_cli.pipeline.chain import versions
    from pseudoris_cli.settings.resolve import resolve

    draw_judge_work(tmp_path, 1, vlm_server)

    def version(endpoint: str = vlm_server, numerics: str = "fp32", **changes: object) -> str:
        write_judge_config(tmp_path, endpoint, **changes)
        assignments = [f"numerics.precision={numerics}", "captions.backend=coca", "captions.checkpoint=random:0"]
        settings = resolve(file=tmp_path / "settings.yaml", assignments=assignments[:1]).settings
        return versions(settings)["judge"]

    plain = version()
    with misbehaving(vlm_server) as proxy:
        same: list[dict] = [{"endpoint": proxy.url}, {"model": "tiny-vlm"}, {"concurrency": 3}, {"timeout": 9.0}]
        same += [{"retries": 1}, {"api_key_env": "OTHER"}, {"image_batch": 9}]
        assert {version(**change) for change in same} == {plain}
    other: list[dict] = [{"model": "another"}, {"mode": "vote"}, {"votes": 3}, {"temperature": 0.5}, {"max_side": 99}]
    other += [{"max_marks": 3}, {"max_tokens": 3}, {"permutations": 3}, {"seed": 3}, {"ask_per_mask": 3}]
    assert len({plain, *(version(**change) for change in other)}) == len(other) + 1


def test_the_key_is_nowhere(tmp_path: Path, vlm_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", CANARY)
    draw_judge_work(tmp_path, 1, vlm_proxy.url, api_key_env="MY_KEY", mode="vote", votes=2)
    vlm_proxy.faults = [Fault(text=f"1 says {CANARY}"), Fault(status=400, body=f'{{"error": "{CANARY}"}}'.encode())]
    said = [judge(tmp_path)]
    vlm_proxy.always = lambda body: Fault(status=401, body=f'{{"error": "{CANARY}"}}'.encode())
    said.append(judge(tmp_path, "--set", "filter.judge.seed=5"))
    assert said[-1].code == 2
    said += [invoke("report", "--work", tmp_path / "work"), invoke("status", "--work", tmp_path / "work", "--json")]
    assert all(CANARY not in outcome.stdout + outcome.stderr for outcome in said)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert invoke("export", *common(tmp_path), "--out", tmp_path / "out").code == 0
