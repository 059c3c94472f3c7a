"""The `sam` backend: checkpoints, settings, and the Segmenter that it makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from locations import FIXTURES
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.backends import sam
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.method.protocols import Segment
from pseudoris_cli.networks.sam.sizes import SIZES, empty, randomise
from pseudoris_cli.rle import decode_rle, ious, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics

CPU = (Numerics(), "cpu")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    path = FIXTURES / "cutler" / "demo7.png"
    return np.array(Image.open(path).convert("RGB").resize((200, 240)))


def tiny(**changes: object) -> sam.Settings:
    return sam.Settings.model_validate(sam.Settings.tiny().model_dump() | changes)


def segment(settings: sam.Settings, image: np.ndarray, numerics: Numerics = CPU[0]) -> list[Segment]:
    return sam.load(settings, numerics, "cpu").segment([image])[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tiny_finds_masks_that_are_what_they_say(photograph: np.ndarray, seed: int) -> None:
    found = segment(tiny(checkpoint=f"random:{seed}"), photograph)
    assert len(found) >= 2
    for item in found:
        mask = decode_rle(item.rle)
        assert mask.shape == photograph.shape[:2]
        assert item.area == mask.sum() > 0
        assert item.bbox == rle_bbox(item.rle)
        assert 0.3 <= item.stability_score <= 1


def test_a_seed_fixes_the_weights(photograph: np.ndarray) -> None:
    first = segment(tiny(), photograph)
    torch.manual_seed(5)
    assert segment(tiny(), photograph) == first
    assert segment(tiny(checkpoint="random:1"), photograph) != first


def test_channels_are_the_order_into_the_network(photograph: np.ndarray) -> None:
    flipped = np.ascontiguousarray(photograph[..., ::-1])
    assert segment(tiny(channels="bgr"), photograph) == segment(tiny(), flipped)
    assert segment(tiny(channels="bgr"), photograph) != segment(tiny(), photograph)


@pytest.mark.parametrize("form", ["official", "absorb", "lowrank"])
def test_every_form_of_the_decoder_gives_the_same_masks(photograph: np.ndarray, form: str) -> None:
    expected, found = segment(tiny(), photograph), segment(tiny(decoder=form, prompt_chunk=5), photograph)
    assert len(found) == len(expected)
    overlap = ious([item.rle for item in found], [item.rle for item in expected])
    assert np.diag(overlap).min() > 0.999


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("form", ["absorb", "lowrank", "official"])
def test_reduced_precision_runs(photograph: np.ndarray, precision: str, form: str) -> None:
    expected = segment(tiny(), photograph)
    found = segment(tiny(decoder=form), photograph, Numerics.model_validate({"precision": precision}))
    best = ious([item.rle for item in expected], [item.rle for item in found]).max(1)
    assert best.mean() > 0.8


@pytest.mark.parametrize("kind", ["pth", "safetensors", "wrapped"])
def test_a_checkpoint_is_what_it_was_saved_from(photograph: np.ndarray, tmp_path: Path, kind: str) -> None:
    state = randomise(empty(SIZES["tiny"]), torch.Generator().manual_seed(3)).state_dict()
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pth'}"
    if kind == "safetensors":
        save_file({name: tensor.half() for name, tensor in state.items()}, path)  # as the embedded weights are shipped
    else:
        torch.save({"model": state} if kind == "wrapped" else state, path)
    found, expected = segment(tiny(checkpoint=str(path)), photograph), segment(tiny(checkpoint="random:3"), photograph)
    if kind == "safetensors":
        assert found
    else:
        assert found == expected


def test_a_checkpoint_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = randomise(empty(SIZES["demo"]), torch.Generator().manual_seed(0)).state_dict()
    del state["mask_decoder.iou_token.weight"]
    torch.save(state | {"extra": torch.zeros(1)}, path)
    with pytest.raises(UsageError) as caught:
        sam.load(tiny(checkpoint=str(path)), *CPU)
    message = str(caught.value)
    assert "masks.sam.model=tiny" in message
    assert "1 tensors missing (mask_decoder.iou_token.weight)" in message
    assert "tensors unexpected (" in message
    assert "image_encoder.pos_embed (1, 16, 16, 128), not (1, 8, 8, 32)" in message


def test_a_missing_checkpoint_names_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PSEUDORIS_WEIGHTS", str(tmp_path))
    with pytest.raises(MissingDependency, match="pseudoris weights fetch sam_vit_h"):
        sam.load(sam.Settings(), *CPU)


def test_a_grid_without_points_is_refused() -> None:
    with pytest.raises(UsageError, match="leave none in layer 2"):
        sam.load(tiny(crop_n_layers=2, crop_n_points_downscale_factor=3), *CPU)


def test_what_changes_masks_is_in_the_version() -> None:
    plain = backends.results_of(tiny())
    assert {"decoder", "prompt_chunk", "channels", "points_per_side", "min_mask_region_area"} <= plain.keys()
    assert backends.results_of(tiny(decoder="absorb")) != plain
    assert backends.results_of(tiny(prompt_chunk=2)) != plain
    assert backends.results_of(tiny(min_mask_region_area=60)) != plain


def test_small_regions_of_masks_go_where_asked_for(photograph: np.ndarray) -> None:
    raw, cleaned = segment(tiny(), photograph), segment(tiny(min_mask_region_area=2000), photograph)
    assert [item.rle for item in cleaned] != [item.rle for item in raw]
    for item in cleaned:
        assert (item.area, item.bbox) == (rle_area(item.rle), rle_bbox(item.rle))
        regions, _ = ndimage.label(decode_rle(item.rle), np.ones((3, 3)))
        areas = np.bincount(regions.ravel())[1:]
        assert len(areas) == 1 or areas.min() >= 2000


def test_images_may_have_any_size(photograph: np.ndarray) -> None:
    images = [photograph, photograph[:1, :1], photograph[:, :3], photograph[:1, :160]]
    found = sam.load(tiny(), *CPU).segment(images)
    assert [len(found[0]) > 0, len(found)] == [True, 4]
    for image, items in zip(images, found, strict=True):
        assert all((item.rle.height, item.rle.width) == image.shape[:2] for item in items)


def test_settings_load_without_torch() -> None:
    code = "import sys; from pseudoris_cli.backends import sam; sam.Settings(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
