"""How often the host may wait for the device: upper bounds, counted on the CUDA double. A bound that is passed is a regression.

A wait costs the time in which the device has nothing to do: until the host has noticed, has worked on and has queued more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cuda_double import CudaDouble, Waits
from small_scenes import scene

from pseudoris_cli.backends import cascade_rcnn, clip, coca, sam, sam_hf
from pseudoris_cli.method.crops import CropSpec, make_crops
from pseudoris_cli.method.scoring import score_images
from pseudoris_cli.records import CROP_KINDS, CaptionCandidate
from pseudoris_cli.settings.models import FilterSettings, Numerics

DEVICE = "cuda:1"
IMAGE = np.random.default_rng(0).integers(0, 256, (90, 128, 3), np.uint8)


def waits_of(work: Callable[[], Any], gpu: CudaDouble, warm: bool = True) -> Waits:
    """What `work` waits for; a first run uploads what is kept (constants)."""
    if warm:
        work()
    with gpu.counting() as found:
        work()
    return found


def segmenter_of(backend: Any, **changes: Any) -> Any:
    return backend.load(backend.Settings.tiny().model_copy(update=changes), Numerics(), DEVICE)


@pytest.mark.parametrize("backend", [sam, sam_hf])
@pytest.mark.parametrize("changes", [{}, {"pred_iou_thresh": 0.7}, {"crop_n_layers": 1, "min_mask_region_area": 20}])
def test_segmenter(backend: Any, changes: dict[str, Any]) -> None:
    """AMG_IMAGE waits and one download for an image, whatever crops it has; AMG_CHUNK more for every chunk of prompts."""
    crops = 5 if changes.get("crop_n_layers") else 1
    with CudaDouble() as gpu:
        found = {}
        for chunk in (16, 4):
            segmenter = segmenter_of(backend, prompt_chunk=chunk, **changes)
            found[chunk] = waits_of(lambda s=segmenter: s.segment([IMAGE]), gpu)
            assert found[chunk].queued["download"] == 1
        assert found[16].kinds["event"] == 1
        assert found[16].within("networks/sam/encoder") == 0
        per_chunk = (found[4].total - found[16].total) / (3 * crops)
        assert per_chunk <= AMG_CHUNK, found[4].places
        assert found[16].total - crops * per_chunk <= AMG_IMAGE, found[16].places


AMG_IMAGE, AMG_CHUNK = 1, 3


def test_the_next_images_are_encoded_before_the_results_of_the_last_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    happened = []
    with CudaDouble() as gpu:
        segmenter = segmenter_of(sam)
        network = segmenter.generator.network
        for part, name in ((network, "pixels"), (network, "encode"), (network, "set_crop"), (gpu.downloads, "arrive")):

            def note(*given: Any, done: Any = getattr(part, name), name: str = name) -> Any:
                happened.append((name, len(given[0])) if name == "encode" else name)
                return done(*given)

            monkeypatch.setattr(part, name, note)
        segmenter.segment([IMAGE, IMAGE[:64], IMAGE[:, :80]])
        one_by_one = [
            *["pixels", ("encode", 1), "pixels", "set_crop"],
            *[("encode", 1), "pixels", "arrive", "set_crop"],
            *[("encode", 1), "arrive", "set_crop", "arrive"],
        ]
        assert happened == one_by_one
        happened.clear()
        segmenter.segment([IMAGE] * 9)
        assert [number for name, number in filter(lambda one: one[0] == "encode", happened)] == [2, 2, 2, 2, 1]


def test_proposer() -> None:
    with CudaDouble() as gpu:
        proposer = cascade_rcnn.load(cascade_rcnn.Settings.tiny(), Numerics(), DEVICE)
        one = waits_of(lambda: proposer.propose([IMAGE], ["a"]), gpu)
        assert one.total <= CASCADE_IMAGE, one.places
        three = waits_of(lambda: proposer.propose([IMAGE] * 3, ["a", "b", "c"]), gpu)
        assert three.total <= 3 * one.total


CASCADE_IMAGE = 16


def test_captioner() -> None:
    """Per chunk of the decoder; a token costs a wait in four, and nothing else grows with the length."""
    one = scene(0)
    with CudaDouble() as gpu:
        found = {}
        for length in (8, 24):
            settings = coca.Settings.tiny().model_copy(
                update={"max_length": length, "min_length": length - 1, "beams": 0, "row_chunk": 10_000}
            )
            captioner = coca.load(settings, Numerics(), DEVICE)
            found[length] = waits_of(lambda c=captioner: c.caption([one]), gpu)
        assert found[8].total <= CAPTION_CHUNK, found[8].places
        assert found[24].total - found[8].total <= 16 / 4, found[24].places


CAPTION_CHUNK = 40


@pytest.mark.parametrize("images", [1, 3])
def test_crops(images: int) -> None:
    """Five uploads, however many crops and sizes: pixels, masks, boxes, windows, and the order of rows."""
    scenes = [scene(number) for number in range(images)]
    spec = CropSpec(32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "mended")
    with CudaDouble() as gpu:
        found = waits_of(lambda: make_crops(scenes, CROP_KINDS, spec, DEVICE), gpu)
    assert found.total <= 4, found.places
    assert set(found.kinds) == {"upload"}


class NoNouns:
    def nouns(self, captions: list[str]) -> list[str]:
        return captions


@pytest.mark.parametrize("images", [1, 3])
def test_scorer(images: int) -> None:
    """A batch of images: the crops' uploads, one for the texts, one for their order, one for the pairs, one transfer back."""
    scenes = [scene(number) for number in range(images)]
    texts = [[CaptionCandidate(mask.mask_id, 0, f"thing {mask.mask_id}") for mask in one.masks] for one in scenes]
    with CudaDouble() as gpu:
        scorer = clip.load(clip.Settings.tiny(), Numerics(), DEVICE)
        found = waits_of(lambda: score_images(scenes, texts, scorer, NoNouns(), FilterSettings()), gpu)
        assert found.total <= 8, found.places
        many = clip.load(clip.Settings.tiny().model_copy(update={"image_chunk": 2}), Numerics(), DEVICE)
        crops = torch.zeros(9, 3, many.size, many.size, device=DEVICE)
        assert waits_of(lambda: many.encode_images(crops), gpu).total == 0
