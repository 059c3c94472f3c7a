"""Shortage of memory and a lost device in every network of the chain, through the real command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from invoking import Outcome, draw_pictures, invoke, rows_of
from locations import FIXTURES
from vlm_work import draw_work

from pseudoris_cli.backends import registry
from pseudoris_cli.backends.automatic_masks import AutomaticSegmenter
from pseudoris_cli.backends.captioner_hf import HfCaptioner
from pseudoris_cli.backends.cascade_rcnn import CascadeProposer
from pseudoris_cli.backends.clip import ClipScorer
from pseudoris_cli.backends.scene_listening import SceneListening
from pseudoris_cli.decoding import engine
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.networks.sam.segment_anything_network import SegmentAnything
from pseudoris_cli.storage.workspace import Workspace

PLACES: dict[str, list[tuple[Any, str]]] = {
    "masks": [(AutomaticSegmenter, "segment"), (SegmentAnything, "decode"), (CascadeProposer, "propose")],
    "captions": [
        (CaptionNetwork, "encode"),
        (CaptionNetwork, "precompute_cross_kv"),
        (CaptionNetwork, "logits"),
        (engine, "search_captions"),
        (engine, "sample_captions"),
    ],
    "scores": [(ClipScorer, "encode_images"), (ClipScorer, "encode_texts")],
    "judge": [(SceneListening, "listen")],
}
"""Stage -> where memory may run out or the device fail."""
SHORT = RuntimeError(
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
)
LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


def run(folder: Path) -> Outcome:
    return invoke(
        "run", "--images", folder / "images", "--work", folder / "work", "--config", "configs/random.yaml", "--device", "cpu",
        "--set", "captions.top_k=[5]", "--set", "captions.top_p=[]", "--set", "captions.max_length=5", "-q",
        "--set", "filter.judge.backend=listener_demo", "--set", "filter.judge.checkpoint=random:0",
        "--set", "filter.judge.min_doc=-1",
    )  # fmt: skip


def failing(work: Callable[..., Any], error: BaseException, times: int) -> Callable[..., Any]:
    left = iter([error] * times)

    def call(*arguments: Any, **more: Any) -> Any:
        for reported in left:
            raise reported
        return work(*arguments, **more)

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without trouble, to compare with."""
    folder = tmp_path_factory.mktemp("whole")
    draw_pictures(folder / "images", 2)
    done = run(folder)
    assert done.code == 0, done.stderr
    return folder


@pytest.mark.parametrize("number", range(max(map(len, PLACES.values()))))
def test_every_network_that_runs_short_once_is_asked_again(
    number: int, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place of each stage in a run: the batch or the chunk is halved, once, and the rows are those of a run without trouble."""
    draw_pictures(tmp_path / "images", 2)
    tried = {stage: places[number] for stage, places in PLACES.items() if number < len(places)}
    for owner, name in tried.values():
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), SHORT, 1))
    done = run(tmp_path)
    assert done.code == 0, done.stderr
    for stage in tried:
        [entry] = Workspace(tmp_path / "work").latest(stage).manifest().entries.values()
        assert entry.counts == {"done": 2}
        halved = [name for name in entry.notes if name == "out_of_memory" or name.endswith("_halved")]
        assert [entry.notes[name] for name in halved] == [1], halved
        wanted, found = (
            [(row["image_key"], row["mask_id"]) for row in rows_of(p / "work", stage)] for p in (whole, tmp_path)
        )
        assert found == wanted


def test_a_device_that_is_lost_in_any_network_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_pictures(tmp_path / "images", 2)
    for stage, places in PLACES.items():
        for owner, name in places:
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, failing(getattr(owner, name), LOST, 1))
                done = run(tmp_path)
            assert done.code == 1, (name, done.stderr)
            assert "the device stopped working: RuntimeError: CUDA error: an illegal memory access" in done.stderr
            assert not Workspace(tmp_path / "work").latest(stage).manifest().entries, "no image is blamed"
    assert run(tmp_path).code == 0


@pytest.mark.parametrize(
    ("error", "told"), [(SHORT, "not enough memory for the networks of masks"), (LOST, "stopped working")]
)
def test_trouble_while_loading(
    error: BaseException, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_pictures(tmp_path / "images", 1)
    monkeypatch.setattr(registry, "load", failing(registry.load, error, 1))
    done = run(tmp_path)
    assert done.code == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def vlm_folder(tmp_path: Path) -> Path:
    import yaml

    draw_work(tmp_path, 2, "http://127.0.0.1:9/v1", masks=2)
    settings = yaml.safe_load((tmp_path / "settings.yaml").read_text())
    own = {
        "backend": "captioner_hf",
        "model": str(FIXTURES / "tiny_vlm"),
        "candidates": 1,
        "max_tokens": 30,
        "max_side": 128,
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings | {"captions": own | {"mask_batch": 2}}))
    return tmp_path


def ask(folder: Path) -> Outcome:
    return invoke("captions", "--work", folder / "work", "--config", folder / "settings.yaml", "--device", "cpu")


def test_a_vision_language_model_whose_memory_does_not_do_for_one_mask(
    vlm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = HfCaptioner._generate_together
    tried: list[int] = []

    def short(self: HfCaptioner, jobs: list[Any]) -> Any:
        tried.append(len(jobs))
        if any(job.scene.image.key == first for job in jobs):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        return together(self, jobs)

    first = "000.png"
    monkeypatch.setattr(HfCaptioner, "_generate_together", short)
    done = ask(vlm_folder)
    assert done.code == 4, done.stderr
    listed = invoke("status", "--work", vlm_folder / "work", "--failed").stdout
    assert "OutOfMemoryError: CUDA out of memory" in listed
    assert {row["image_key"] for row in rows_of(vlm_folder / "work", "captions")} <= {"001.png"}
    assert tried.count(1) == 2, "each mask of the image alone, once: another try would end the same way"


def test_a_vision_language_model_whose_device_is_lost(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HfCaptioner, "_generate_together", failing(HfCaptioner._generate_together, LOST, 1))
    done = ask(vlm_folder)
    assert done.code == 1
    assert "the device stopped working" in done.stderr
