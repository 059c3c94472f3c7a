"""Every stage on a device, which the CUDA double stands for: no tensor mixes with the host's, and results are those of the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_double import CudaDouble
from invoking import draw_pictures, invoke, rows_of
from locations import FIXTURES
from small_scenes import scene
from vlm_work import draw_work

from pseudoris_cli.backends import cascade_rcnn, clip, coca, listener_demo, sam, sam_hf
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.records import MaskedImage
from pseudoris_cli.settings.models import Numerics
from pseudoris_cli.storage.workspace import Workspace

DEVICES = ("cuda:0", "cuda:1")
PRECISIONS = ("fp32", "bf16", "fp16")
NEAR = {"fp32": 1e-4, "bf16": 0.1, "fp16": 0.02}
"""How far numbers of a precision may be from the CPU's in fp32."""


IMAGE = np.random.default_rng(0).integers(0, 256, (90, 128, 3), np.uint8)


def segments(device: str, precision: str = "fp32", image: np.ndarray = IMAGE, **changes: Any) -> list:
    settings = sam.Settings.tiny().model_copy(update=changes)
    return sam.load(settings, Numerics(precision=precision), device).segment([image, image[:64]])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("decoder", ["official", "absorb", "lowrank"])
def test_masks_of_every_decoder(decoder: str, precision: str) -> None:
    on_cpu = segments("cpu", decoder=decoder)
    device = DEVICES[decoder == "absorb"]
    with CudaDouble():
        found = segments(device, precision, decoder=decoder)
    for ours, theirs in zip(found, on_cpu, strict=True):
        assert len(theirs) > 3
        if precision == "fp32":
            assert [mask.rle for mask in ours] == [mask.rle for mask in theirs]
        else:
            assert len(ours) > 0
    assert found[0][0].predicted_iou == pytest.approx(on_cpu[0][0].predicted_iou, abs=NEAR[precision])


@pytest.mark.parametrize("decoder", ["official", "absorb", "lowrank"])
def test_masks_of_crops_without_small_regions(decoder: str) -> None:
    changes = {"decoder": decoder, "crop_n_layers": 1, "min_mask_region_area": 20, "prompt_chunk": 3}
    with CudaDouble():
        found = segments("cuda:1", **changes)
    assert [[mask.rle for mask in of_image] for of_image in found] == [
        [mask.rle for mask in of_image] for of_image in segments("cpu", **changes)
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("model", ["tiny_sam2", "tiny_sam_hq", "tiny_sam3_tracker", "tiny_edgetam"])
def test_masks_of_transformers_models(model: str, precision: str) -> None:
    changes = {"model": model, "crop_n_layers": 1 if model == "tiny_sam2" else 0}
    settings = sam_hf.Settings.tiny().model_copy(update=changes)
    theirs = sam_hf.load(settings, Numerics(), "cpu").segment([IMAGE])
    with CudaDouble():
        ours = sam_hf.load(settings, Numerics(precision=precision), "cuda:1").segment([IMAGE])
    assert len(theirs[0]) > 0
    assert len(ours[0]) > 0
    if precision == "fp32":
        assert [mask.rle for mask in ours[0]] == [mask.rle for mask in theirs[0]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_proposals(precision: str) -> None:
    images = [IMAGE, IMAGE[:64], IMAGE]
    settings = cascade_rcnn.Settings.tiny()
    theirs = cascade_rcnn.load(settings, Numerics(), "cpu").propose(images, ["a", "b", "c"])
    with CudaDouble():
        ours = cascade_rcnn.load(settings, Numerics(precision=precision), "cuda:1").propose(images, ["a", "b", "c"])
    assert all(len(found) > 10 for found in ours)
    if precision == "fp32":
        assert [len(found) for found in ours] == [len(found) for found in theirs]
        pairs = [pair for a, b in zip(ours, theirs, strict=True) for pair in zip(a, b, strict=True)]
        assert np.mean([a.rle == b.rle for a, b in pairs]) > 0.9
        assert np.allclose([a.score for a, _ in pairs], [b.score for _, b in pairs], atol=1e-4)


def captions(device: str, precision: str, images: list[MaskedImage], **changes: Any) -> list:
    settings = coca.Settings.tiny().model_copy(update={"max_length": 8, "top_k": (5,), "top_p": (0.5,), **changes})
    return coca.load(settings, Numerics(precision=precision), device).caption(images)


@pytest.mark.parametrize("form", ["literal", "scale_preserving"])
def test_captions(form: str) -> None:
    images = [scene(0), scene(1)]
    theirs = captions("cpu", "fp32", images, contrast_form=form)
    with CudaDouble():
        ours = captions("cuda:1", "fp32", images, contrast_form=form)
    assert [[one.caption for one in found] for found in ours] == [[one.caption for one in found] for found in theirs]
    numbers = [[one.logprob for found in side for one in found] for side in (ours, theirs)]
    assert np.allclose(*numbers, atol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_captions_in_half_precision(precision: str) -> None:
    with CudaDouble():
        [ours] = captions("cuda:0", precision, [scene(0)])
    assert all(np.isfinite(one.logprob) for one in ours)
    assert len({one.caption for one in ours}) > 3


@pytest.mark.parametrize(("model", "precision"), [*(("tiny", precision) for precision in PRECISIONS), ("RN50", "bf16")])
def test_scorer(model: str, precision: str) -> None:
    import torch

    settings = clip.Settings(model=model, checkpoint="random:0", image_chunk=2, text_chunk=2)
    texts = ["a red ball", "a dog that sits left of the blue box", "two"]
    theirs = clip.load(settings, Numerics(), "cpu")
    crops = torch.randn(3, 3, theirs.size, theirs.size, generator=torch.Generator().manual_seed(0))
    with CudaDouble():
        ours = clip.load(settings, Numerics(precision=precision), "cuda:1")
        found = [ours.encode_images(crops.to("cuda:1")).cpu(), ours.encode_texts(texts).cpu()]
    for mine, yours in zip(found, [theirs.encode_images(crops), theirs.encode_texts(texts)], strict=True):
        assert (mine * yours).sum(1).min() > 1 - NEAR[precision]


def test_listener() -> None:
    one = scene(0)
    lineup = Lineup("0", one.image_rgb, one.masks, ("the red ball", "the box left"))
    theirs = listener_demo.load(listener_demo.Settings.tiny(), Numerics(), "cpu").listen([lineup])
    with CudaDouble():
        ours = listener_demo.load(listener_demo.Settings.tiny(), Numerics(), "cuda:1").listen([lineup])
    assert np.allclose(ours[0], theirs[0], atol=1e-5)


def test_vision_language_model_in_process(tmp_path: Path) -> None:
    import yaml

    own = {
        "backend": "captioner_hf",
        "model": str(FIXTURES / "tiny_vlm"),
        "candidates": 2,
        "max_tokens": 40,
        "max_side": 128,
    }
    found = []
    for number, device in enumerate(("cpu", "cuda:1")):
        folder = tmp_path / str(number)
        folder.mkdir()
        draw_work(folder, 1, "http://127.0.0.1:9/v1")
        settings = yaml.safe_load((folder / "settings.yaml").read_text())
        (folder / "settings.yaml").write_text(yaml.safe_dump(settings | {"captions": own | {"temperature": 1.0}}))
        arguments = ("captions", "--work", folder / "work", "--config", folder / "settings.yaml", "--device", device)
        if device == "cpu":
            done = invoke(*arguments)
        else:
            with CudaDouble():
                done = invoke(*arguments)
        assert done.code in (0, 4), done.stderr
        found.append(rows_of(folder / "work", "captions"))
    assert len(found[0]) > 1
    assert found[0] == found[1]


def test_the_whole_command_on_the_second_device(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "images", 2)

    def run(work: str, *device: str) -> None:
        done = invoke(
            "run", "--images", tmp_path / "images", "--work", tmp_path / work, "--config", "configs/random.yaml", *device,
            "--set", "captions.top_k=[5]", "--set", "captions.top_p=[0.5]", "--set", "captions.max_length=6",
        )  # fmt: skip
        assert done.code == 0, done.stderr

    run("cpu", "--device", "cpu")
    with CudaDouble() as gpu:
        run("gpu", "--gpu", "1")
    assert gpu.waits.total > 0
    for stage in ("masks", "captions", "scores"):
        [entry] = Workspace(tmp_path / "gpu").latest(stage).manifest().entries.values()
        assert entry.notes["device"] == "cuda"
        assert entry.counts == {"done": 2}
    columns = ("image_key", "mask_id", "caption")
    wanted, ours = ([[row[c] for c in columns] for row in rows_of(tmp_path / w, "captions")] for w in ("cpu", "gpu"))
    assert ours == wanted
