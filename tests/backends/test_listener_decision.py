"""The same questions in this process: what the served model says, without a server."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from invoking import invoke, rows_of
from lineups import image
from locations import FIXTURES
from vlm_work import common, draw_images, write_config

from pseudoris_cli.backends import listener_decision, listener_vlm
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.settings.models import Numerics

MODEL = str(FIXTURES / "tiny_vlm")


def test_it_hears_what_the_server_hears(vlm_server: str) -> None:
    one = image(3)
    lineups = [
        Lineup("a", one.image_rgb, one.masks, ("the red disc", "a star")),
        Lineup("b", one.image_rgb, one.masks, ()),
    ]
    here = listener_decision.load(listener_decision.Settings(model=MODEL, max_side=64), Numerics(), "cpu")
    served = listener_vlm.load(listener_vlm.Settings(endpoint=vlm_server, max_side=64), Numerics(), "elsewhere")
    assert here.numbered
    for ask in ("listen", "fits"):
        mine, theirs = getattr(here, ask)(lineups), getattr(served, ask)(lineups)
        assert [found.shape for found in mine] == [found.shape for found in theirs]
        assert np.allclose(mine[0], theirs[0], atol=1e-3)
        assert np.ptp(mine[0]) > 1e-3


def test_other_bytes_are_another_version_and_a_model_may_be_missing(tmp_path: Path) -> None:
    plain = listener_decision.version(listener_decision.Settings(model=MODEL))
    copy = tmp_path / "m"
    copy.mkdir()
    for file in Path(MODEL).iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert listener_decision.version(listener_decision.Settings(model=str(copy))) == plain
    (copy / "chat_template.jinja").write_text("another")
    assert listener_decision.version(listener_decision.Settings(model=str(copy))) != plain
    with pytest.raises(MissingDependency, match="hf download nobody/nothing"):
        listener_decision.load(listener_decision.Settings(model="nobody/nothing"), Numerics(), "cpu")


def test_from_masks_to_an_export_without_a_server(tmp_path: Path) -> None:
    """Captioner and listener in process, the whole pipeline by its commands."""
    draw_images(tmp_path, 2, 2)
    write_config(tmp_path / "settings.yaml", "http://127.0.0.1:9/v1")
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    settings["captions"] = {"backend": "captioner_hf", "model": MODEL, "candidates": 2, "temperature": 0.5, "max_tokens": 60,
                            "max_side": 256}  # fmt: skip
    judge = {"backend": "listener_decision", "model": MODEL, "max_side": 256}
    settings["filter"] |= {"clamp": False, "min_listener": 0.0, "judge": judge}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    commands = (
        ["masks", "--images", str(tmp_path / "images")],
        ["captions"],
        ["filter"],
        ["export", "--out", str(tmp_path / "out")],
    )
    for command in commands:
        done = invoke(command[0], *common(tmp_path), *command[1:])
        assert done.code == 0, (command, done.stderr)
    rows = rows_of(tmp_path / "work", "filter")
    assert {row["sampler"] for row in rows} == {"vlm"}
    assert [row for row in rows if row["listener"] != "nan"]
    refs = json.loads((tmp_path / "out/refcoco/refs(pseudo).json").read_text())
    said = {sentence["sent"] for ref in refs for sentence in ref["sentences"]}
    assert said
    assert said <= {row["caption"] for row in rows if row["kept"]}
