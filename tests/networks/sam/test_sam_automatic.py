"""Automatic masks against segment_anything's SamAutomaticMaskGenerator."""

from __future__ import annotations

from dataclasses import asdict, replace

import mask_agreement
import numpy as np
import pytest
import torch
from locations import FIXTURES
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from pseudoris_cli.networks.sam import automatic, run_lengths
from pseudoris_cli.networks.sam.automatic import AutomaticMasks, AutomaticMaskSettings, MaskCandidate
from pseudoris_cli.networks.sam.decoder import OfficialDecoder
from pseudoris_cli.networks.sam.decoder_absorbed import AbsorbedDecoder
from pseudoris_cli.networks.sam.decoder_lowrank import LowRankDecoder
from pseudoris_cli.networks.sam.segment_anything_network import SegmentAnything
from pseudoris_cli.networks.sam.sizes import SIZES, empty, randomise
from pseudoris_cli.networks.sam.small_regions import remove_small_regions

DEFAULTS = AutomaticMaskSettings(
    points_per_side=5,
    pred_iou_thresh=0.6,
    stability_score_thresh=0.8,
    stability_score_offset=1.0,
    box_nms_thresh=0.9,
    crop_n_layers=0,
    crop_nms_thresh=0.7,
    crop_overlap_ratio=512 / 1500,
    crop_n_points_downscale_factor=1,
    min_mask_region_area=0,
)
# image size (height, width), settings
CASES = {
    "landscape": ((213, 320), DEFAULTS),
    "portrait": ((160, 75), replace(DEFAULTS, pred_iou_thresh=0.7, box_nms_thresh=0.95)),
    "square, nothing filtered": ((96, 96), replace(DEFAULTS, pred_iou_thresh=0.0, stability_score_thresh=0.0)),
    "crops": ((107, 160), replace(DEFAULTS, crop_n_layers=1, crop_n_points_downscale_factor=2, crop_nms_thresh=0.8)),
    "small, other offset": ((40, 61), replace(DEFAULTS, stability_score_offset=4.0, stability_score_thresh=0.5)),
    "long": ((15, 160), replace(DEFAULTS, box_nms_thresh=0.97)),
}
REGIONS = {
    "small regions": ((213, 320), replace(DEFAULTS, min_mask_region_area=1200)),
    "small regions, crops": (
        (107, 160),
        replace(
            DEFAULTS, crop_n_layers=1, crop_n_points_downscale_factor=2, crop_nms_thresh=0.8, min_mask_region_area=400
        ),
    ),
}
"""Cases in which small regions go; `mask_agreement` knows no reason for what the removal changes."""


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    path = FIXTURES / "cutler" / "demo3.png"
    return np.array(Image.open(path).convert("RGB"))[:320, :320]


@pytest.fixture(scope="module", params=["tiny", "demo"])
def sam(request: pytest.FixtureRequest) -> Sam:
    return randomise(empty(SIZES[request.param]), torch.Generator().manual_seed({"tiny": 0, "demo": 3}[request.param]))


def counts(masks: list[MaskCandidate], image: np.ndarray) -> list[list[int]]:
    return [run_lengths.counts(mask.edges, image.shape[0] * image.shape[1]) for mask in masks]


@pytest.mark.parametrize("case", (CASES | REGIONS).values(), ids=CASES | REGIONS)
def test_with_the_official_decoder_masks_are_equal(
    opencv: None, sam: Sam, photograph: np.ndarray, case: tuple[tuple[int, int], AutomaticMaskSettings]
) -> None:
    (height, width), settings = case
    image = photograph[:height, :width]
    expected = SamAutomaticMaskGenerator(sam, output_mode="uncompressed_rle", **asdict(settings)).generate(image)
    found = AutomaticMasks(SegmentAnything(sam, OfficialDecoder(sam, 64)), settings).generate([image])[0]
    assert expected, "a comparison of nothing shows nothing"
    assert counts(found, image) == [mask["segmentation"]["counts"] for mask in expected]
    assert [run_lengths.area(mask.edges) for mask in found] == [mask["area"] for mask in expected]
    for mask, record in zip(found, expected, strict=True):
        x0, y0, x1, y1 = mask.box_xyxy
        assert [x0, y0, x1 - x0, y1 - y0] == record["bbox"]
        assert mask.predicted_iou == record["predicted_iou"]
        np.testing.assert_equal(mask.stability_score, record["stability_score"])  # nan where both levels are empty
        x0, y0, x1, y1 = mask.crop_xyxy
        assert [x0, y0, x1 - x0, y1 - y0] == record["crop_box"]


@pytest.mark.parametrize("case", REGIONS.values(), ids=REGIONS)
def test_small_regions_go(
    sam: Sam, photograph: np.ndarray, case: tuple[tuple[int, int], AutomaticMaskSettings]
) -> None:
    (height, width), settings = case
    image = photograph[:height, :width]
    raw = AutomaticMasks(
        SegmentAnything(sam, LowRankDecoder(sam, 4)), replace(settings, min_mask_region_area=0)
    ).generate([image])[0]
    cleaned = AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), settings).generate([image])[0]
    before = {(mask.crop_xyxy, mask.prompt, mask.mask): mask for mask in raw}
    assert counts(cleaned, image) != counts(raw, image)
    for mask in cleaned:
        old = before[mask.crop_xyxy, mask.prompt, mask.mask]
        assert (mask.predicted_iou, mask.stability_score) == (old.predicted_iou, old.stability_score)
        expected, _ = remove_small_regions(old.edges, height, height * width, settings.min_mask_region_area)
        np.testing.assert_array_equal(mask.edges, expected)


@pytest.mark.parametrize("form", [AbsorbedDecoder, LowRankDecoder])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_rewritten_masks_differ_in_close_calls_only(
    sam: Sam, photograph: np.ndarray, form: type[LowRankDecoder], case: tuple[tuple[int, int], AutomaticMaskSettings]
) -> None:
    (height, width), settings = case
    image = photograph[:height, :width]
    expected = mask_agreement.run(AutomaticMasks(SegmentAnything(sam, OfficialDecoder(sam, 64)), settings), image)
    found = mask_agreement.run(AutomaticMasks(SegmentAnything(sam, form(sam, 4)), settings), image)
    assert len(expected.kept) > 1
    assert mask_agreement.unexplained(found, expected, settings) == []
    assert mask_agreement.fraction_different(found, expected, height * width) <= 1e-5


def test_images_do_not_influence_each_other(photograph: np.ndarray) -> None:
    sam = randomise(empty(SIZES["tiny"]), torch.Generator().manual_seed(1))
    images = [photograph[:100, :160], photograph[200:], photograph[:, 250:]]
    settings = replace(DEFAULTS, crop_n_layers=1, crop_n_points_downscale_factor=3)
    generator = AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), settings)
    together = generator.generate(images)
    for masks, image in zip(together, images, strict=True):
        assert counts(masks, image) == counts(generator.generate([image])[0], image)
    gathered = AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), settings, gather=True).generate(images)
    assert [len(masks) for masks in gathered] == [len(masks) for masks in together]


def test_little_memory_gives_the_same_masks(photograph: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    sam = randomise(empty(SIZES["tiny"]), torch.Generator().manual_seed(1))
    image = photograph[:100, :160]
    expected = AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), DEFAULTS).generate([image])[0]
    monkeypatch.setattr(automatic, "CPU_PIXELS", 1)
    found = AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), DEFAULTS).generate([image])[0]
    assert expected
    assert counts(found, image) == counts(expected, image)


def test_an_image_too_thin_for_the_network_has_no_masks() -> None:
    sam = randomise(empty(SIZES["tiny"]), torch.Generator().manual_seed(0))
    thin = np.full((1, 4000, 3), 200, np.uint8)
    generator = AutomaticMasks(
        SegmentAnything(sam, LowRankDecoder(sam, 4)),
        replace(DEFAULTS, crop_n_layers=1, crop_n_points_downscale_factor=3),
    )
    assert generator.generate([thin, np.zeros((1, 1, 3), np.uint8)])[0] == []


def test_a_difference_without_a_close_call_is_told(photograph: np.ndarray) -> None:
    sam = randomise(empty(SIZES["tiny"]), torch.Generator().manual_seed(0))
    settings = replace(DEFAULTS, box_nms_thresh=1.0)
    full = mask_agreement.run(
        AutomaticMasks(SegmentAnything(sam, LowRankDecoder(sam, 4)), settings), photograph[:100, :160]
    )
    name = next(iter(full.kept))
    less = mask_agreement.Run({k: v for k, v in full.kept.items() if k != name}, full.every)
    assert mask_agreement.unexplained(full, less, settings) == [name]
    near = replace(settings, pred_iou_thresh=full.every[name].predicted_iou)
    assert mask_agreement.unexplained(full, less, near) == []
    by_area = sorted(full.every.values(), key=lambda mask: run_lengths.area(mask.edges))
    one, other = by_area[0], by_area[-1]
    dense = [np.zeros(16000, bool), np.zeros(16000, bool)]
    for pixels, mask in zip(dense, (one, other), strict=True):
        for start, end in mask.edges.reshape(-1, 2):
            pixels[start:end] = True
    assert mask_agreement.pixels_different(one, other) == int((dense[0] != dense[1]).sum()) > 0
