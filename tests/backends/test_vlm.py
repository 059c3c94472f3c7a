"""Captions by a vision-language model, through the real `transformers serve`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from invoking import invoke, rows_of
from vlm_proxy import Fault, Proxy, misbehaving
from vlm_work import caption, common, draw_images, draw_work, journal, notes_of, write_config

CANARY = "canary-3f9a7c51-secret"


def test_the_whole_pipeline_through_the_real_server(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_images(tmp_path, 3, 3)
    write_config(tmp_path / "settings.yaml", vlm_proxy.url)
    assert invoke("masks", *common(tmp_path), "--images", tmp_path / "images").code == 0
    done = caption(tmp_path)
    assert done.code == 0, done.stderr
    assert "no GPU found" not in done.stderr
    rows = rows_of(tmp_path / "work", "captions")
    assert len(vlm_proxy.real()) == 9, "one request per mask"
    assert {(row["image_key"], row["mask_id"]) for row in rows} == {
        (f"{n:03d}.png", m) for n in range(3) for m in range(3)
    }
    assert {row["sampler"] for row in rows} == {"vlm"}
    assert {row["crop"] for row in rows} == {"marks+crop"}
    assert {row["kind"] for row in rows} <= {"attribute", "position", "relation", "action", "other"}
    [note] = notes_of(tmp_path)
    assert note["requests"]["requests"] == 9
    assert note["requests"]["tokens_in"] > 9 * 50
    assert note["device"] == "endpoint"
    for command in (["filter"], ["export", "--out", tmp_path / "out"], ["report"], ["status"]):
        flags = ("--work", tmp_path / "work") if command[0] in ("report", "status") else common(tmp_path)
        done = invoke(*command, *flags)
        assert done.code == 0, (command, done.stderr)
    assert [row["kind"] for row in rows_of(tmp_path / "work", "filter")] == [row["kind"] for row in rows]
    sentences = json.loads((tmp_path / "out/refcoco/refs(pseudo).json").read_text())
    said = {sentence["sent"] for ref in sentences for sentence in ref["sentences"]}
    assert said
    assert said <= {row["caption"] for row in rows}
    assert journal(tmp_path) == [], "the journal goes when the part is committed"
    before = len(vlm_proxy.asked)
    again = caption(tmp_path)
    assert "nothing to do" in again.stdout
    assert len(vlm_proxy.asked) == before, "a finished part asks nothing, not even what the server can do"


def test_requests_hold_pictures_first_and_what_the_settings_say(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, temperature=0.4, top_p=0.9, style="refcoco+", language="German")
    assert caption(tmp_path).code == 0
    for body in vlm_proxy.real():
        assert [part["type"] for part in body["messages"][0]["content"]] == ["image_url", "image_url", "text"]
        assert (body["temperature"], body["top_p"], body["max_tokens"], body["model"]) == (0.4, 0.9, 60, "tiny-vlm")
        text = body["messages"][0]["content"][-1]["text"]
        assert "in German" in text
        assert "no left, right" in text
        assert "n" not in body
    assert len({body["seed"] for body in vlm_proxy.real()}) == 3


def test_rows_are_in_order_however_answers_arrive(tmp_path: Path, vlm_proxy: Proxy) -> None:
    """The first answers come last, one of them after the whole part; concurrency is used and kept to."""
    draw_work(tmp_path, 6, vlm_proxy.url, part_size=6, concurrency=5)
    first: dict[str, float] = {}
    vlm_proxy.always = lambda body: Fault(
        delay=first.setdefault(json.dumps(body)[-3000:], 0.6 if len(first) < 3 else 0.0)
    )
    assert caption(tmp_path).code == 0
    slow = rows_of(tmp_path / "work", "captions")
    assert 2 <= vlm_proxy.most_in_flight <= 5
    order = [(row["image_key"], row["mask_id"], row["candidate_id"]) for row in slow]
    assert order == sorted(order)
    shutil.rmtree(tmp_path / "work" / "captions")
    vlm_proxy.always = lambda body: None
    write_config(tmp_path / "settings.yaml", vlm_proxy.url, concurrency=1)
    assert caption(tmp_path).code == 0
    assert rows_of(tmp_path / "work", "captions") == slow, "at temperature 0 order and concurrency change nothing"


def test_a_model_that_is_not_there(tmp_path: Path, vlm_proxy: Proxy, logits_server: str) -> None:
    for url, model in ((vlm_proxy.url, "tiny-vlm"), (logits_server, "tiny-logits")):
        folder = tmp_path / model
        draw_work(folder, 1, url, model=model[:-1])
        done = caption(folder)
        assert done.code == 2
        assert f"has no model '{model[:-1]}'" in done.stderr
        assert f"did you mean {model}?" in done.stderr


def test_a_model_without_eyes(tmp_path: Path, vlm_proxy: Proxy, vlm_server: str) -> None:
    """A server may answer 200 and drop the picture, or refuse it."""
    draw_work(tmp_path, 1, vlm_proxy.url)
    with misbehaving(vlm_server) as blind:
        blind.always = lambda body: Fault(text="hello")  # counts the same tokens with and without a picture
        write_config(tmp_path / "settings.yaml", blind.url)
        done = caption(tmp_path)
        assert done.code == 2
        assert "does not see pictures" in done.stderr
        refusal = Fault(status=400, body=b'{"error": {"message": "tiny-vlm is not a multimodal model"}}')
        blind.always = lambda body: refusal if "image_url" in json.dumps(body) else Fault(text="hello")
        done = caption(tmp_path)
        assert done.code == 2
        assert "does not see pictures" in done.stderr
        assert blind.real() == [], "no mask was asked about"


def test_a_request_that_is_refused_is_the_failure_of_its_mask(tmp_path: Path, vlm_proxy: Proxy) -> None:
    """The other masks of its image have their rows; it is tried again when asked for, and only it."""
    draw_work(tmp_path, 2, vlm_proxy.url, concurrency=1)
    vlm_proxy.faults = [Fault(status=400, body=b'{"error": {"message": "content filter"}}')]
    done = caption(tmp_path)
    assert done.code == 0, done.stderr
    [note] = notes_of(tmp_path)
    [(key, masks)] = note["failed_masks"].items()
    [(mask, reason)] = masks.items()
    assert "content filter" in reason
    first = rows_of(tmp_path / "work", "captions")
    assert len({(row["image_key"], row["mask_id"]) for row in first}) == 5
    before = len(vlm_proxy.real())
    assert caption(tmp_path, "--retry-failed").code == 0
    assert len(vlm_proxy.real()) - before == 1, "finished rows are never asked again"
    second = rows_of(tmp_path / "work", "captions")
    assert [row for row in second if (row["image_key"], row["mask_id"]) != (key, int(mask))] == first
    assert "failed_masks" not in notes_of(tmp_path)[0]


def test_an_image_of_which_every_mask_fails_is_a_failed_image(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 2, vlm_proxy.url, masks=1)
    vlm_proxy.faults = [Fault(status=400)]
    done = caption(tmp_path)
    assert done.code == 4
    assert len({row["image_key"] for row in rows_of(tmp_path / "work", "captions")}) == 1
    assert caption(tmp_path, "--retry-failed").code == 0
    assert len({row["image_key"] for row in rows_of(tmp_path / "work", "captions")}) == 2


def test_one_repair_then_the_failure_of_the_mask(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, concurrency=1)
    vlm_proxy.faults = [Fault(text="Well, let me think."), Fault(text="1. the red box"), *[Fault(text="Hm.")] * 2]
    assert caption(tmp_path).code == 0
    repaired = next(body["messages"] for body in vlm_proxy.real() if len(body["messages"]) > 1)
    assert [message["role"] for message in repaired] == ["user", "assistant", "user"]
    assert repaired[1]["content"] == "Well, let me think."
    assert "JSON only" in repaired[2]["content"][0]["text"]
    [note] = notes_of(tmp_path)
    assert note["requests"]["repairs"] == 2
    assert len(note["failed_masks"]["000.png"]) == 1
    assert "the red box" in {row["caption"] for row in rows_of(tmp_path / "work", "captions")}


def test_leaks_are_rejected_counted_and_kept_as_raw_text(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, concurrency=1)
    answer = json.dumps({"expressions": ["object 3", {"text": "the green box", "kind": "attribute"}]})
    vlm_proxy.faults = [Fault(text=answer), Fault(text='["the outlined one"]'), Fault(text='["a box", "a box", "c"]')]
    assert caption(tmp_path).code == 0
    [note] = notes_of(tmp_path)
    assert note["rejected"] == {"names the marks": 2}
    assert {text for *_, text in note["rejected_texts"]} == {"object 3", "the outlined one"}
    rows = rows_of(tmp_path / "work", "captions")
    assert not {"object 3", "the outlined one"} & {row["caption"] for row in rows}
    by_mask = [[row["candidate_id"] for row in rows if row["mask_id"] == mask] for mask in range(3)]
    assert all(ids == list(range(len(ids))) for ids in by_mask)


def test_more_than_asked_for_is_cut_and_duplicates_stay(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, masks=1)
    vlm_proxy.faults = [Fault(text='["a box", "a box", "c box"]')]
    assert caption(tmp_path).code == 0
    assert [row["caption"] for row in rows_of(tmp_path / "work", "captions")] == ["a box", "a box"]


def test_the_key_is_nowhere(tmp_path: Path, vlm_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in any file, not on the terminal; not even when the server sends it back in errors and answers."""
    monkeypatch.setenv("MY_KEY", CANARY)
    echo = {"error": {"message": f"bad request with {CANARY}"}}
    draw_images(tmp_path, 3, 3)
    write_config(tmp_path / "settings.yaml", vlm_proxy.url, api_key_env="MY_KEY")
    size = ("--set", "source.part_size=1")
    assert invoke("masks", *common(tmp_path), "--images", tmp_path / "images", *size).code == 0
    vlm_proxy.faults = [
        Fault(text=json.dumps([f"the {CANARY} box"])),
        Fault(status=400, body=json.dumps(echo).encode()),
        Fault(status=500, body=json.dumps(echo).encode()),
    ]
    said = [caption(tmp_path)]
    said += [invoke("filter", *common(tmp_path)), invoke("export", *common(tmp_path), "--out", tmp_path / "out")]
    said += [invoke("report", "--work", tmp_path / "work"), invoke("status", "--work", tmp_path / "work", "--json")]
    said += [invoke("doctor", *common(tmp_path)), invoke("config", "show", "--config", tmp_path / "settings.yaml")]
    vlm_proxy.always = lambda body: Fault(status=401, body=json.dumps(echo).encode())
    said.append(caption(tmp_path, "--set", "captions.seed=5"))
    assert "MY_KEY" in said[-1].stderr
    assert "[key]" in said[-1].stderr
    for outcome in said:
        assert CANARY not in outcome.stdout + outcome.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]
    prompts = [b"data:image", b"referring expressions for the target"]
    assert not [path for path in (tmp_path / "work").rglob("*.json*") if any(p in path.read_bytes() for p in prompts)]


def test_the_version_holds_model_prompt_and_sampling_and_nothing_of_the_way(
    tmp_path: Path, vlm_proxy: Proxy, vlm_server: str
) -> None:
    from pseudoris_cli.pipeline.chain import versions
    from pseudoris_cli.settings.resolve import resolve

    def version(endpoint: str = vlm_server, numerics: str = "fp32", **captions: object) -> str:
        file = write_config(tmp_path / "s.yaml", endpoint, **captions)
        return versions(resolve(file=file, assignments=[f"numerics.precision={numerics}"]).settings)["captions"]

    (tmp_path / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    plain = version()
    same: list[dict] = [
        {"endpoint": vlm_proxy.url},
        {"model": "tiny-vlm"},
        {"concurrency": 3},
        {"timeout": 9.0},
        {"retries": 1},
    ]
    assert {version(**change) for change in (*same, {"api_key_env": "OTHER"}, {"image_batch": 9})} == {plain}
    (tmp_path / "p.txt").write_text("$pictures $form")
    other: list[dict] = [
        {"model": "another"},
        {"view": "crop"},
        {"style": "refcoco"},
        {"candidates": 3},
        {"temperature": 1.0},
    ]
    other += [
        {"top_p": 0.5},
        {"seed": 1},
        {"max_side": 64},
        {"max_marks": 3},
        {"max_tokens": 99},
        {"language": "German"},
    ]
    other += [{"schema": "off"}, {"prompt": str(tmp_path / "p.txt")}]
    found = [version(**change) for change in other]
    assert len({plain, *found}) == len(other) + 1
    (tmp_path / "p.txt").write_text("$pictures, please. $form")
    assert version(prompt=str(tmp_path / "p.txt")) not in found


def test_a_schema_is_used_where_the_server_holds_to_it(tmp_path: Path, logits_server: str, vlm_proxy: Proxy) -> None:
    with misbehaving(logits_server) as proxy:
        draw_work(tmp_path, 1, proxy.url, temperature=1.0, candidates=2, max_tokens=160)
        assert caption(tmp_path).code == 0
        assert all(body["response_format"]["json_schema"]["strict"] for body in proxy.real())
        assert len(proxy.real()) == 3, "what is held to a schema needs no repair"
        [note] = notes_of(tmp_path)
        assert note["resolved"] == {"schema": "json_schema"}
        write_config(tmp_path / "settings.yaml", proxy.url, schema="off")
        before = len(proxy.asked)
        caption(tmp_path)
        assert not any("response_format" in body for body in proxy.asked[before:])
    write_config(tmp_path / "settings.yaml", vlm_proxy.url, schema="on")
    done = caption(tmp_path)
    assert done.code == 2
    assert "captions.schema=on" in done.stderr
