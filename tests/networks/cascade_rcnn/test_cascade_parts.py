"""The parts of the Cascade R-CNN by hand: geometry, anchors, selection, pasting, sizes, checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import locations
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from pseudoris_cli.errors import EnvironmentStop, UsageError
from pseudoris_cli.networks.cascade_rcnn import transforms
from pseudoris_cli.networks.cascade_rcnn.boxes import apply_deltas, clip
from pseudoris_cli.networks.cascade_rcnn.checkpoint import load_strictly, state_dict_of
from pseudoris_cli.networks.cascade_rcnn.detector import R50_FPN, TINY, CascadeRCNN, initialise
from pseudoris_cli.networks.cascade_rcnn.resnet_fpn import fold_norms
from pseudoris_cli.networks.cascade_rcnn.roi_heads import Detections, pyramid_levels
from pseudoris_cli.networks.cascade_rcnn.rpn import make_anchors, select_proposals
from pseudoris_cli.weights.tensors import load_tensors

FIXTURES = locations.FIXTURES / "cutler"


@pytest.fixture(scope="module")
def tiny() -> CascadeRCNN:
    network = CascadeRCNN(TINY)
    initialise(network, torch.Generator().manual_seed(3))
    return network.eval()


def test_the_official_network_has_the_official_names_shapes_and_order() -> None:
    with torch.device("meta"):
        state = CascadeRCNN(R50_FPN).state_dict()
    ours = {name: [list(value.shape), str(value.dtype)] for name, value in state.items()}
    official = json.loads((FIXTURES / "keys_full.json").read_text())
    assert ours == official
    assert list(ours) == list(official)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((800, 800), (800, 800)),
        ((600, 1000), (800, 1333)),
        ((200, 1000), (267, 1333)),  # the longest edge rules
        ((1000, 200), (1333, 267)),
        ((3000, 4000), (800, 1067)),
        ((1, 5000), (1, 1333)),  # detectron2 would ask for 0 rows
        ((1, 1), (800, 800)),
    ],
)
def test_input_sizes(image: tuple[int, int], expected: tuple[int, int]) -> None:
    assert transforms.network_size(*image, 800, 1333) == expected


def test_inputs_are_normalised_first_and_padded_with_zeros_at_the_right_and_below() -> None:
    pixels = transforms.normalise(np.full((33, 64, 3), 255, np.uint8), "cpu")
    assert pixels.shape == (3, 64, 64)
    assert pixels[:, 33:].abs().max() == 0
    assert pixels[0, :33].unique().item() == pytest.approx((255 - 123.675) / 58.395)


def test_deltas_move_centres_scale_sides_and_bound_growth_only() -> None:
    box = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    deltas = torch.tensor([[5.0, -10.0, 5 * math.log(2), -50.0]])
    moved = apply_deltas(deltas, box, (10, 10, 5, 5))
    height = 40 * math.exp(-10)
    assert moved[0].tolist() == pytest.approx([10, 0 - height / 2, 50, 0 + height / 2], abs=1e-4)
    grown = apply_deltas(torch.tensor([[0.0, 0.0, 100.0, 0.0]]), box, (1, 1, 1, 1))
    assert (grown[0, 2] - grown[0, 0]).item() == pytest.approx(20 * 1000 / 16, rel=1e-5)


def test_clipping_removes_nan() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor([[-5.0, -5.0, 500.0, 300.0], [nan, 1.0, 2.0, 3.0], [-inf, 0.0, inf, inf]])
    assert clip(boxes, (100, 200)).tolist() == [[0, 0, 200, 100], [0, 1, 2, 3], [0, 0, 200, 100]]


def test_anchors_start_at_the_origin_in_row_major_order_then_ratios() -> None:
    anchors = make_anchors(2, 3, 1, torch.device("cpu"))  # p3: stride 8, size 64
    assert anchors.shape == (18, 4)
    assert anchors[1].tolist() == [-32, -32, 32, 32]
    assert anchors[4].tolist() == [-24, -32, 40, 32]
    assert anchors[3 * 3 + 1].tolist() == [-32, -24, 32, 40]
    wide, _, tall = anchors[:3]
    assert ((wide[2] - wide[0]) / (wide[3] - wide[1])).item() == pytest.approx(2)
    assert ((tall[2] - tall[0]) / (tall[3] - tall[1])).item() == pytest.approx(0.5)


def test_levels_change_at_112_224_and_448_pixels_and_empty_boxes_go_to_p2() -> None:
    sides = [0, 1, 111.9, 112, 223.9, 224, 447.9, 448, 4000]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    assert pyramid_levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("count", [60, 1500])  # one suppression over shifted boxes; one per level
def test_proposals_are_suppressed_within_their_level(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 40 + torch.rand(count, 2, generator=generator) * 40], dim=1)
    logits = torch.randn(count, generator=generator)
    levels = torch.randint(0, 3, (count,), generator=generator)
    boxes[0], logits[1], boxes[2, 2:] = float("inf"), float("nan"), boxes[2, :2]  # two broken, one empty
    kept, kept_logits = select_proposals(boxes, logits, levels, (120, 110))
    clipped = clip(boxes, (120, 110))
    survivors = []
    for level in range(3):
        rows = [row for row in (levels == level).nonzero()[:, 0].tolist() if row > 2]
        rows = [row for row in rows if (clipped[row, 2:] > clipped[row, :2]).all()]
        survivors += [rows[i] for i in nms(clipped[rows], logits[rows], 0.65).tolist()]
    survivors.sort(key=lambda row: -logits[row].item())
    assert torch.equal(kept, clipped[survivors])
    assert torch.equal(kept_logits, logits[survivors])
    assert len(kept) < count - 3
    assert box_iou(kept, kept).fill_diagonal_(0).max() > 0.65  # across levels overlap is allowed


def test_a_network_that_computes_nothing_finite_stops_the_run() -> None:
    nothing = torch.full((5, 4), float("nan"))
    with pytest.raises(EnvironmentStop, match="no finite number"):
        select_proposals(nothing, torch.zeros(5), torch.zeros(5, dtype=torch.long), (32, 32))


def test_pasting_sets_the_pixels_whose_centres_lie_in_the_box() -> None:
    boxes = torch.tensor([[2.0, 1.0, 6.0, 4.0], [2.6, 0.0, 4.4, 8.0], [7.0, 7.0, 8.0, 8.0]])
    found = Detections(boxes, torch.ones(3), torch.ones(3, 28, 28))
    masks = [mask.copy() for mask in transforms.paste_masks(found, (8, 8))]
    assert [int(mask.sum()) for mask in masks] == [12, 8, 1]
    assert masks[0][1:4, 2:6].all()
    assert masks[1][:, 3].all()
    assert masks[2][7, 7]


def test_pasting_interpolates_between_cells() -> None:
    cells = torch.zeros(1, 28, 28)
    cells[:, :, :14] = 1.0
    found = Detections(torch.tensor([[0.0, 0.0, 56.0, 56.0]]), torch.ones(1), cells)
    [mask] = (mask.copy() for mask in transforms.paste_masks(found, (56, 60)))
    assert mask[:, :28].all()
    assert not mask[:, 28:].any()


def test_detections_are_scaled_clipped_and_dropped_when_empty() -> None:
    boxes = torch.tensor([[0.0, 0.0, 40.0, 20.0], [39.0, 5.0, 80.0, 60.0], [41.0, 0.0, 50.0, 10.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, 28, 28))
    scaled = transforms.to_frame(found, (20, 40), (40, 80))
    assert scaled.boxes.tolist() == [[0, 0, 80, 40], [78, 10, 80, 40]]
    assert scaled.scores.tolist() == pytest.approx([0.9, 0.8])


def test_no_detections_go_all_the_way(tiny: CascadeRCNN) -> None:
    [found] = tiny.detect(torch.zeros(1, 3, 64, 96), [(60, 90)], 1.0)
    assert found.boxes.shape == (0, 4)
    assert found.mask_probabilities.shape == (0, 28, 28)
    scaled = transforms.to_frame(found, (60, 90), (120, 180))
    assert list(transforms.paste_masks(scaled, (120, 180))) == []


def test_the_smallest_input_works(tiny: CascadeRCNN) -> None:
    [found] = tiny.detect(torch.randn(1, 3, 32, 32), [(1, 20)], 0.0)
    assert (found.boxes[:, 3] <= 1).all()


def test_images_of_a_batch_do_not_change_each_other(tiny: CascadeRCNN) -> None:
    pixels = torch.randn(3, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    features, alone = tiny.backbone(pixels), [tiny.backbone(pixels[i : i + 1]) for i in range(3)]
    for level, single in zip(features, zip(*alone, strict=True), strict=True):
        assert torch.allclose(level, torch.cat(single), atol=1e-4)
    together = tiny.detect(pixels, [(96, 128), (70, 128), (96, 100)], 0.5)
    assert len(together) == 3
    assert together[1].boxes[:, 3].max() <= 70
    assert together[2].boxes[:, 2].max() <= 100


def test_folded_norms_change_nothing_but_rounding(tiny: CascadeRCNN) -> None:
    folded = CascadeRCNN(TINY)
    folded.load_state_dict(tiny.state_dict())
    generator = torch.Generator().manual_seed(1)
    for module in folded.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            torch.nn.init.normal_(module.bias, 0, 0.3, generator=generator)
    pixels = torch.randn(1, 3, 64, 64, generator=generator)
    before = folded.eval().backbone(pixels)
    fold_norms(folded)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    for level, expected in zip(folded.backbone(pixels), before, strict=True):
        assert torch.allclose(level, expected, atol=1e-4)


def test_official_layouts_load(tiny: CascadeRCNN, tmp_path: Path) -> None:
    state = tiny.state_dict()
    arrays = {name: value.numpy() for name, value in state.items()}
    extra = {"pixel_mean": torch.zeros(3), "proposal_generator.anchor_generator.cell_anchors.0": torch.zeros(3, 4)}
    layouts = {
        "bare": dict(state),
        "wrapped": {"model": dict(state) | extra, "iteration": 7, "optimizer": {"state": {}}},
        "numpy": {"model": arrays},
        "parallel": {"model": {f"module.{name}": value for name, value in (state | extra).items()}},
    }
    for name, layout in layouts.items():
        torch.save(layout, tmp_path / f"{name}.pth")
        other = CascadeRCNN(TINY)
        load_strictly(other, state_dict_of(load_tensors(tmp_path / f"{name}.pth"), name), name)
        assert all(torch.equal(value, state[key]) for key, value in other.state_dict().items()), name


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(tiny: CascadeRCNN) -> None:
    state = tiny.state_dict()
    del state["roi_heads.mask_head.deconv.bias"]
    state["roi_heads.extra"] = torch.zeros(1)
    state["backbone.fpn_output2.weight"] = torch.zeros(1, 1, 3, 3)
    with pytest.raises(UsageError) as caught:
        load_strictly(CascadeRCNN(TINY), state, "x.pth")
    text = str(caught.value)
    assert "1 missing (roi_heads.mask_head.deconv.bias)" in text
    assert "1 unexpected (roi_heads.extra)" in text
    assert "backbone.fpn_output2.weight is [1, 1, 3, 3], not [16, 16, 3, 3]" in text


@pytest.mark.parametrize("value", ["text", [1, 2], np.array(["a"]), torch.tensor([1.0, float("nan")])])
def test_what_is_no_weight_is_refused(value: object) -> None:
    with pytest.raises(UsageError, match=r"x\.pth"):
        state_dict_of({"model": {"backbone.w": value}}, "x.pth")


def test_a_model_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(UsageError, match="not a mapping"):
        state_dict_of({"model": 3}, "x.pth")
    with pytest.raises(UsageError, match="not a mapping"):
        state_dict_of({}, "x.pth")
