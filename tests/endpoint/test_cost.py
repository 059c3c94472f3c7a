"""What a pilot says the whole source will cost."""

from __future__ import annotations

import json
from pathlib import Path

from invoking import invoke
from vlm_proxy import Proxy
from vlm_work import common, draw_images, write_config

from pseudoris_cli.endpoint import usage


def test_a_pilot_tells_requests_tokens_hours_and_money(tmp_path: Path, vlm_proxy: Proxy) -> None:
    draw_images(tmp_path, 6, 3)
    write_config(tmp_path / "settings.yaml", vlm_proxy.url)
    pilot = ("--pilot", "2", *common(tmp_path))
    assert invoke("masks", *pilot, "--images", tmp_path / "images").code == 0
    done = invoke("captions", *pilot, "--price-in", "1000000", "--price-out", "0", "--json")
    assert done.code == 0, done.stderr
    cost = json.loads(done.stdout)["cost"]
    assert cost["requests"] == 6
    assert cost["money"] == cost["tokens_in"]
    assert cost["whole_source"]["images"] == 6
    assert cost["whole_source"]["requests"] == 18
    assert cost["whole_source"]["tokens_in"] == 3 * cost["tokens_in"]
    assert cost["whole_source"]["money"] == 3 * cost["money"]
    assert cost["whole_source"]["hours"] > 0
    again = invoke("captions", *pilot)
    assert "the whole source, 6 images like these: 18 requests" in again.stdout
    assert "costs" not in again.stdout


def test_arithmetic() -> None:
    counts = usage.total([{"requests": 3, "tokens_in": 10}, {"requests": 1, "tokens_out": 4}])
    assert counts == {"requests": 4, "tokens_in": 10, "tokens_out": 4}
    assert usage.Prices(2.0, 8.0).cost(1_000_000, 500_000) == 6.0
    whole = usage.extrapolated(counts, 2, 200, 36.0)
    assert (whole["requests"], whole["tokens_in"], whole["hours"]) == (400, 1000, 1.0)
