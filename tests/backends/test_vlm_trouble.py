"""A server in trouble: what passes is waited for, what does not stops with one message and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from invoking import rows_of
from vlm_proxy import Fault, Proxy
from vlm_work import caption, draw_work, notes_of, write_config

from pseudoris_cli.storage.workspace import Workspace

CANARY = "canary-3f9a7c51-secret"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers=(("Retry-After", "0"),)),
        Fault(status=503),
        Fault(status=500),
        Fault(cut=True),
        Fault(status=200, body=b"<html>gateway</html>"),
        Fault(status=502, body=b"<html>bad gateway</html>", content_type="text/html"),
    ],
    ids=["429", "503", "500", "cut", "no JSON", "gateway page"],
)
def test_passing_trouble_is_tried_again(fault: Fault, tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url)
    vlm_proxy.faults = [fault, fault]
    done = caption(tmp_path)
    assert done.code == 0, done.stderr
    assert {row["mask_id"] for row in rows_of(tmp_path / "work", "captions")} == {0, 1, 2}
    [note] = notes_of(tmp_path)
    assert note["requests"]["retries"] >= 2
    assert "failed_masks" not in note


def test_a_hanging_request_is_tried_again(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, timeout=1.5, retries=3)
    vlm_proxy.faults = [Fault(delay=4, cut=True)]
    done = caption(tmp_path)
    assert done.code == 0, done.stderr
    assert notes_of(tmp_path)[0]["requests"]["retries"] >= 1


def test_retry_after_is_waited_for_by_all(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url, concurrency=1)
    vlm_proxy.faults = [Fault(status=429, headers=(("Retry-After", "2"),))]
    assert caption(tmp_path).code == 0
    moments = [t for t, body in zip(vlm_proxy.times, vlm_proxy.asked, strict=True) if body in vlm_proxy.real()]
    assert moments[1] - moments[0] >= 2.0


STOPS: dict[str, tuple[Fault, int, str]] = {
    "key": (Fault(status=401, body=b'{"error": {"message": "Incorrect API key"}}'), 2, "OPENAI_API_KEY"),
    "quota": (Fault(status=429, body=b'{"error": {"code": "insufficient_quota", "message": "quota"}}'), 1, "quota"),
    "busy for ever": (Fault(status=429, headers=(("Retry-After", "0"),)), 1, "captions.concurrency"),
    "gateway": (Fault(status=503, headers=(("Retry-After", "0"),)), 1, "not available"),
    "a week": (Fault(status=429, headers=(("Retry-After", "604800"),)), 1, "come back later"),
    "garbage": (Fault(text="I cannot help with that."), 1, "captions.prompt"),
}


@pytest.mark.parametrize("name", STOPS)
def test_what_does_not_pass_stops_with_one_clear_message(name: str, tmp_path: Path, vlm_proxy: Proxy) -> None:
    """The first part is committed and kept; of the second nothing is."""
    fault, code, words = STOPS[name]
    draw_work(tmp_path, 4, vlm_proxy.url, part_size=2, retries=2)
    vlm_proxy.always = lambda body: fault if len(vlm_proxy.real()) > (0 if name == "garbage" else 6) else None
    done = caption(tmp_path)
    assert done.code == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    committed = 0 if name == "garbage" else 1
    manifest = Workspace(tmp_path / "work").latest("captions").manifest()
    assert sorted(manifest.entries) == list(range(committed))
    assert len(list(manifest.folder.glob("*.parquet"))) == committed
    vlm_proxy.always = lambda body: None
    before = len(vlm_proxy.real())
    assert caption(tmp_path).code == 0
    if name != "garbage":
        assert len(vlm_proxy.real()) - before <= 6, "what was committed is not asked again"
    assert len({(row["image_key"], row["mask_id"]) for row in rows_of(tmp_path / "work", "captions")}) == 12


def test_a_dead_server(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url)
    write_config(tmp_path / "settings.yaml", "http://127.0.0.1:9/v1", model="tiny-vlm")
    done = caption(tmp_path)
    assert done.code == 1
    assert "http://127.0.0.1:9/v1 cannot be reached" in done.stderr
    assert "is the server running" in done.stderr


def test_no_endpoint_and_bad_addresses(tmp_path: Path, vlm_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_work(tmp_path, 1, vlm_proxy.url)
    write_config(tmp_path / "settings.yaml", None, model="tiny-vlm")  # type: ignore[arg-type]
    done = caption(tmp_path)
    assert done.code == 2
    assert "OPENAI_BASE_URL" in done.stderr
    monkeypatch.setenv("OPENAI_BASE_URL", vlm_proxy.url)
    assert caption(tmp_path).code == 0
    for bad in (
        f"http://me:{CANARY}@localhost/v1",
        f"http://localhost/v1?key={CANARY}",
        "localhost:8000",
        "ftp://x/v1",
    ):
        done = caption(tmp_path, "--set", f"captions.endpoint={bad}")
        assert done.code == 2, bad
        assert CANARY not in done.stderr + done.stdout
    done = caption(tmp_path, "--set", f"captions.api_key_env={CANARY}")
    assert done.code == 2
    assert "NAME of an environment variable" in done.stderr
    assert CANARY not in done.stderr


def test_a_run_is_warned_of_a_dead_server_before_its_first_stage(
    tmp_path: Path, vlm_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    from pseudoris_cli.pipeline.chain import check_weights
    from pseudoris_cli.settings.resolve import resolve

    monkeypatch.setattr(logging.getLogger("pseudoris"), "propagate", True)
    (tmp_path / "instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    for url, warned in ((vlm_server, False), ("http://127.0.0.1:9/v1", True)):
        caplog.clear()
        file = write_config(tmp_path / "s.yaml", url, model="tiny-vlm")
        check_weights(resolve(file=file).settings)
        assert ("captions will need their server" in caplog.text) == warned
