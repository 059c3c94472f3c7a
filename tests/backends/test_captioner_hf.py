"""The same pictures and words in process: rows, determinism, and that no answer depends on the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from invoking import rows_of
from locations import FIXTURES
from vlm_work import caption, draw_work

from pseudoris_cli.backends import captioner_hf
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.storage.workspace import Workspace

MODEL = str(FIXTURES / "tiny_vlm")


def use_hf(folder: Path, **captions: object) -> None:
    import yaml

    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    own = {
        "backend": "captioner_hf",
        "model": MODEL,
        "candidates": 2,
        "temperature": 1.0,
        "max_tokens": 60,
        "max_side": 256,
    }
    settings["captions"] = own | captions
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))


def test_rows_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    draw_work(tmp_path, 2, "http://127.0.0.1:9/v1")
    found = []
    for batch in (1, 4):
        use_hf(tmp_path, mask_batch=batch)
        done = caption(tmp_path)
        assert done.code in (0, 4), done.stderr
        found.append(rows_of(tmp_path / "work", "captions"))
    assert found[0] == found[1], "every mask draws its own random numbers"
    assert {row["sampler"] for row in found[0]} == {"vlm"}
    assert len({row["caption"] for row in found[0]}) > 2, "and not all the same"
    [entry] = Workspace(tmp_path / "work").latest("captions").manifest().entries.values()
    assert entry.notes["device"] == "cpu"


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_work(tmp_path, 1, "http://127.0.0.1:9/v1")
    use_hf(tmp_path, mask_batch=3, temperature=0.0)
    together = captioner_hf.HfCaptioner._generate_together

    def short(self, jobs):
        if len(jobs) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return together(self, jobs)

    monkeypatch.setattr(captioner_hf.HfCaptioner, "_generate_together", short)
    assert caption(tmp_path).code == 0
    [entry] = Workspace(tmp_path / "work").latest("captions").manifest().entries.values()
    assert entry.notes["mask_batch_halved"] >= 2
    assert {row["mask_id"] for row in rows_of(tmp_path / "work", "captions")} == {0, 1, 2}


def test_models_that_are_not_here_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="hf download nobody/nothing"):
        captioner_hf.load(captioner_hf.Settings(model="nobody/nothing"), Numerics(), "cpu")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UsageError, match="cannot load it as a model of pictures and text"):
        captioner_hf.load(captioner_hf.Settings(model=str(tmp_path)), Numerics(), "cpu")


def test_other_bytes_are_another_version(tmp_path: Path) -> None:
    import shutil

    shutil.copytree(MODEL, tmp_path / "m")
    settings = captioner_hf.Settings(model=str(tmp_path / "m"))
    before = captioner_hf.version(settings)
    assert before == captioner_hf.version(captioner_hf.Settings(model=MODEL))
    (tmp_path / "m" / "chat_template.jinja").write_text("another")
    assert captioner_hf.version(settings) != before
