"""The memory plan's formulas against what torch's allocator counts, on the CUDA double: the code takes a GPU's ways there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cuda_double import CudaDouble
from peak_memory import peak_bytes
from small_scenes import scene

from pseudoris_cli.backends import cascade_rcnn, clip, coca, registry, sam
from pseudoris_cli.networks.memory import Memory, Work
from pseudoris_cli.settings.models import Numerics

NEAR = 0.25
DEVICE = "cuda:0"


def loaded(settings: Any, precision: str) -> Any:
    return registry.load(settings, Numerics(precision=precision), DEVICE)


def check(measured: float, planned: float) -> None:
    print(f"measured {measured / 1e6:.1f} MB, planned {planned / 1e6:.1f} MB: {planned / measured:.2f}")
    assert planned == pytest.approx(measured, rel=NEAR)


def work(precision: str, images: int = 1) -> Work:
    return Work(images, Numerics(precision=precision), on_gpu=True)


IMAGE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_encoder_of_masks(precision: str) -> None:
    from pseudoris_cli.networks.sam import memory
    from pseudoris_cli.networks.sam.sizes import SIZES

    with CudaDouble(), torch.inference_mode():
        network = loaded(sam.Settings.tiny().model_copy(update={"model": "demo"}), precision).generator.network
        for images in (1, 4):
            pixels = [network.pixels(IMAGE)] * images
            check(
                peak_bytes(lambda p=pixels: network.encode(p)), memory._encode(SIZES["demo"], work(precision, images))
            )


@pytest.mark.parametrize("form", ["absorb", "lowrank", "official"])
@pytest.mark.parametrize(("precision", "chunk"), [("fp32", 16), ("fp32", 64), ("bf16", 64)])
def test_decoder_of_masks(form: str, precision: str, chunk: int) -> None:
    from pseudoris_cli.networks.sam import memory
    from pseudoris_cli.networks.sam.sizes import SIZES

    settings = sam.Settings.tiny().model_copy(
        update={"model": "demo", "decoder": form, "prompt_chunk": chunk, "points_per_side": 8}
    )
    square = np.zeros((256, 256, 3), np.uint8)
    with CudaDouble(), torch.inference_mode():
        generator = loaded(settings, precision).generator
        [embedding] = generator.network.encode([generator.network.pixels(square)])

        def decode() -> None:
            generator.network.set_crop(embedding, (256, 256))
            generator.network.decode(generator.grids[0][:chunk], None)

        check(peak_bytes(decode), memory._decode(SIZES["demo"], form, chunk, work(precision)))


@pytest.mark.parametrize(("precision", "chunk", "side"), [("fp32", 16, 240), ("bf16", 4, 480)])
def test_masks_at_the_pixels_of_the_image(precision: str, chunk: int, side: int) -> None:
    settings = sam.Settings.tiny().model_copy(
        update={"model": "demo", "prompt_chunk": chunk, "points_per_side": 8, "stability_score_thresh": 1.0}
    )
    image = np.zeros((side, side * 4 // 3, 3), np.uint8)
    with CudaDouble():
        segmenter = loaded(settings, precision)
        measured = peak_bytes(lambda: segmenter.segment([image]))
    from pseudoris_cli.networks.sam import memory
    from pseudoris_cli.networks.sam.sizes import SIZES, empty

    need = memory.memory(SIZES["demo"], empty(SIZES["demo"]), "absorb", chunk, work(precision), image[..., 0].size)
    check(measured, need.activations + need.caches)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_proposals(precision: str) -> None:
    settings = cascade_rcnn.Settings(model="r50_fpn", checkpoint="random:0", min_size=192, max_size=256)
    with CudaDouble():
        proposer = loaded(settings, precision)
        measured = peak_bytes(lambda: proposer.propose([IMAGE], ["a"]))
    check(measured, cascade_rcnn.memory(settings, work(precision)).activations)


@pytest.mark.parametrize(("precision", "chunk"), [("fp32", 256), ("fp32", 1024), ("bf16", 1024)])
def test_captions(precision: str, chunk: int) -> None:
    from pseudoris_cli.networks.coca.memory import memory

    settings = coca.Settings(model="demo", checkpoint="random:0", row_chunk=chunk, max_length=24)
    picture = scene(0)
    with CudaDouble():
        captioner = loaded(settings, precision)
        measured = peak_bytes(lambda: captioner.caption([picture]))
        need = memory(captioner._network.coca, chunk, 23, 10, work(precision), len(picture.masks))
    check(measured, need.activations + need.caches)


@pytest.mark.parametrize(
    ("model", "precision", "crops"), [("RN50", "fp32", 4), ("RN50", "bf16", 2), ("ViT-B-32", "fp32", 8)]
)
def test_scorer(model: str, precision: str, crops: int) -> None:
    from pseudoris_cli.networks.clip.memory import memory

    settings = clip.Settings(model=model, checkpoint="random:0", image_chunk=crops)
    with CudaDouble():
        scorer = loaded(settings, precision)
        pixels = torch.zeros(crops, 3, scorer.size, scorer.size)
        measured = peak_bytes(lambda: scorer.encode_images(pixels.to(DEVICE)))
        need = memory(scorer._model, crops, 1, work(precision), masks=crops)
    check(measured, need.activations - crops * 3 * scorer.size**2 * 4)  # one of the two kinds of crops


WEIGHTS: list[tuple[Any, Callable[[Any], Any]]] = [
    (sam.Settings.tiny(), lambda made: made.generator.network.sam),
    (cascade_rcnn.Settings.tiny(), lambda made: made.network),
    (coca.Settings.tiny(), lambda made: made._network.coca),
    (clip.Settings.tiny(), lambda made: made._model),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("number", range(len(WEIGHTS)))
def test_weights(number: int, precision: str) -> None:
    settings, network_of = WEIGHTS[number]
    module = {0: sam, 1: cascade_rcnn, 2: coca, 3: clip}[number]
    network = network_of(registry.load(settings, Numerics(precision=precision), "cpu"))
    held = sum(t.numel() * t.element_size() for t in [*network.parameters(), *network.buffers()])
    assert module.memory(settings, work(precision)).weights == pytest.approx(held, rel=0.05)


def test_what_two_networks_need_together() -> None:
    assert Memory(1, 5, 2) + Memory(2, 3, 1) == Memory(3, 5, 3)
