"""The memory plan of transformers' models and of the listeners against what torch's allocator counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cuda_double import CudaDouble
from locations import FIXTURES
from peak_memory import peak_bytes

from pseudoris_cli.backends import captioner_hf, listener_decision, listener_demo, registry, sam_hf
from pseudoris_cli.doctor.memory_plan import plan
from pseudoris_cli.method.protocols import Lineup
from pseudoris_cli.networks.memory import Work, stored
from pseudoris_cli.networks.traced import held_by
from pseudoris_cli.networks.vision_language_memory import request
from pseudoris_cli.prompting.questions import Question
from pseudoris_cli.prompting.views import Scene
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.settings.models import Numerics, Settings

NEAR = 0.25


def check(measured: float, planned: float) -> None:
    print(f"measured {measured / 1e6:.2f} MB, planned {planned / 1e6:.2f} MB: {planned / measured:.2f}")
    assert planned == pytest.approx(measured, rel=NEAR)


def work(precision: str, images: int = 1, on_gpu: bool = True) -> Work:
    return Work(images, Numerics(precision=precision), on_gpu)


def test_a_trace_counts_what_lives_at_the_same_time() -> None:
    def done() -> torch.Tensor:
        x = torch.empty(100, device="meta")  # 400 bytes
        y = (x + 1).view(10, 10)[2:]  # 400 more
        del x
        z = y.t() @ y  # 400, where y's memory is still there as its view is
        return z.sum(0)

    assert held_by(done) == (840, 40)
    q = torch.empty(1, 2, 1000, 8, device="meta")
    assert held_by(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))[0] == q.numel() * 4


@pytest.mark.parametrize("model", ["tiny_sam2", "tiny_sam_hq", "tiny_sam3_tracker", "tiny_edgetam"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_masks(model: str, precision: str) -> None:
    """Encoder and decoder each; the pixels of the picture are on the host and pinned too, which is not the device's."""
    settings = sam_hf.Settings.tiny().model_copy(update={"model": model, "prompt_chunk": 16})
    blank, _ = sam_hf._blank(None, model, Numerics(precision=precision))

    def first_peak() -> int:
        """Of the first call of a fresh network, which makes its position embeddings."""
        fresh = sam_hf.load(settings, Numerics(precision=precision), "cuda:0").generator.network
        shown = torch.randn(2, 3, fresh.square, fresh.square)
        shown = shown.to("cuda:0", next(fresh.model.vision_encoder.parameters()).dtype)
        with torch.inference_mode():
            return peak_bytes(lambda: fresh.model.get_image_embeddings(shown))

    with CudaDouble():
        # of several, as what another object of this process frees in between can only lower a figure
        encoding = max(first_peak() for _ in range(3))
        network = sam_hf.load(settings, Numerics(precision=precision), "cuda:0").generator.network
        dtype = next(network.model.vision_encoder.parameters()).dtype
        with torch.inference_mode():
            [embedding] = network.encode([network.pixels(np.zeros((240, 320, 3), np.uint8))])

            def decode() -> None:
                network.set_crop(embedding, (240, 320))
                network.decode(network.grid(4), None)

            decode()
            network.release()
            decoding = peak_bytes(decode)
    with torch.device("meta"):
        pixels = torch.empty(2, 3, network.square, network.square, dtype=dtype)
    check(encoding, held_by(lambda: blank.get_image_embeddings(pixels))[0])
    check(decoding, sam_hf.memory(settings, work(precision)).caches)


def test_masks_of_a_whole_image_and_their_weights() -> None:
    settings = sam_hf.Settings.tiny().model_copy(update={"prompt_chunk": 16, "points_per_side": 8})
    image = np.zeros((480, 640, 3), np.uint8)
    with CudaDouble():
        segmenter = sam_hf.load(settings, Numerics(), "cuda:0")
        measured = peak_bytes(lambda: segmenter.segment([image]))
    need = sam_hf.memory(settings, work("fp32"))
    check(measured, need.activations + need.caches)
    assert need.weights == stored(segmenter.generator.network.model)
    few, many = (sam_hf.memory(settings, work("fp32", images)) for images in (4, 1 << 14))
    assert many.activations > few.activations
    assert sam_hf.memory(settings, work("fp32", 1 << 14, on_gpu=False)).activations < few.activations, (
        "one at a time on a CPU"
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The fixture, and a network with other proportions in which language, and one in which pictures take the most."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    wide = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "vocab_size": 5000,
    }
    seen = {"hidden_size": 256, "intermediate_size": 1024, "num_heads": 4, "depth": 3}
    changes: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "tiny": ({}, {}),
        "wide": (wide | {"head_dim": 32}, {"out_hidden_size": 256}),
        "seen": ({}, seen),
    }
    found = {}
    for name, (text, vision) in changes.items():
        folder = found[name] = tmp_path_factory.mktemp("models") / name
        shutil.copytree(FIXTURES / "tiny_vlm", folder)
        config = AutoConfig.from_pretrained(folder)
        for part, values in ((config.text_config, text), (config.vision_config, vision)):
            for key, value in values.items():
                setattr(part, key, value)
        AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
        processor = json.loads((folder / "processor_config.json").read_text())
        processor["image_processor"]["size"] = {"shortest_edge": 3136, "longest_edge": 10**7}
        (folder / "processor_config.json").write_text(json.dumps(processor))
    return found


def masked(side: int, objects: int = 7) -> MaskedImage:
    """A picture whose objects are a third of it, so that the closer look is as large as the picture."""
    height = side * 3 // 4
    image = np.random.default_rng(0).integers(0, 256, (height, side, 3), np.uint8)
    masks = []
    for number in range(objects):
        mask = np.zeros((height, side), bool)
        mask[height // 3 : 2 * height // 3, side // 3 : 2 * side // 3 + number] = True
        box = (side // 3, height // 3, side // 3 + number, height // 3)
        masks.append(Mask(number, encode_rle(mask), tuple(map(float, box)), int(mask.sum()), 0.9, 0.9))
    return MaskedImage("a", image, tuple(masks), "a")


@pytest.mark.parametrize("model", ["tiny", "wide", "seen"])
@pytest.mark.parametrize(("precision", "together", "side"), [("fp32", 1, 256), ("fp32", 3, 512), ("bf16", 2, 512)])
def test_captions(model: str, precision: str, together: int, side: int, models: dict[str, Path]) -> None:
    settings = captioner_hf.Settings(
        model=str(models[model]), max_side=side, mask_batch=together, max_tokens=16, temperature=0.0
    )
    captioner = registry.load(settings, Numerics(precision=precision), "cpu")
    scene = Scene(masked(side), settings.view, settings.max_side, settings.max_marks)
    jobs = [captioner._job(scene, place) for place in range(together)]
    inputs = captioner._inputs(jobs)
    need = captioner_hf.memory(settings, work(precision))
    given = inputs["pixel_values"].numel() * inputs["pixel_values"].element_size()
    check(peak_bytes(lambda: captioner._generated(inputs, jobs)) + given, need.activations + need.caches)
    assert need.weights == pytest.approx(stored(captioner.network), rel=0.05)


@pytest.mark.parametrize("model", ["tiny", "wide", "seen"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_listener_of_transformers(model: str, precision: str, models: dict[str, Path]) -> None:
    """All questions of a call are prepared before the first is asked; each is a pass of its own."""
    settings = listener_decision.Settings(model=str(models[model]), max_side=512)
    listener = registry.load(settings, Numerics(precision=precision), "cpu")
    one = masked(512)
    picture = listener._picture(Lineup("a", one.image_rgb, one.masks, ()))
    asked = [Question(f"the object number {number} on the left", 7) for number in range(listener_decision._TOGETHER)]
    forward = listener._pipeline._forward
    held, passes = [], []

    def measured(inputs: Any) -> Any:
        tensors = [value for made, _ in inputs["prompts"] for value in made.values() if torch.is_tensor(value)]
        held.append(sum(value.numel() * value.element_size() for value in tensors))
        found: list[Any] = []
        passes.append(peak_bytes(lambda: found.append(forward(inputs))))
        return found[0]

    listener._pipeline._forward = measured
    listener._decide(picture, 7, asked)
    need = listener_decision.memory(settings, work(precision))
    check(held[0] + passes[0], need.activations)
    check(passes[0], need.activations - _of_pictures(settings, models[model]))
    assert need.weights == pytest.approx(stored(listener._pipeline.model), rel=0.05)


def _of_pictures(settings: listener_decision.Settings, folder: Path) -> int:
    """What the plan has for the pictures of all questions."""
    asked = request(folder, "", ((settings.max_side, settings.max_side * 3 // 4),), "")
    return listener_decision._TOGETHER * asked.numbers * 4


@pytest.mark.parametrize("texts", [256, 600])
def test_the_demo_s_listener(texts: int) -> None:
    listener = listener_demo.load(listener_demo.Settings.tiny(), Numerics(), "cpu")
    one = masked(256)
    said = tuple(f"the red ball number {number} " + "of the blue box " * 5 for number in range(texts))
    lineup = Lineup("a", one.image_rgb, one.masks, said)
    need = listener_demo.memory(listener_demo.Settings.tiny(), work("fp32"))
    check(peak_bytes(lambda: listener.listen([lineup])), need.activations)
    assert need.weights == pytest.approx(stored(listener._networks[0]), rel=0.05)


def test_the_plan_has_the_judge_and_names_models_that_are_not_here(models: dict[str, Path]) -> None:
    judged = {"filter": {"judge": {"backend": "listener_decision", "model": str(models["tiny"])}}}
    written = {"captions": {"backend": "captioner_hf", "model": str(models["tiny"])}}
    stages = {one.stage: one for one in plan(Settings.model_validate(judged | written), True, 80e9)}
    assert list(stages) == ["masks", "captions", "scores", "judge"]
    assert stages["captions"].fitting["captions.mask_batch"] >= 256
    assert not any(one.unknown for one in stages.values())
    missing = {"filter": {"judge": {"backend": "listener_decision", "model": "nobody/nothing"}}}
    *_, judge = plan(Settings.model_validate(missing), True, 80e9)
    assert "nobody/nothing" in judge.unknown[0]
    assert not judge.fitting
