"""The Cascade R-CNN as a proposer: sizes, order, batches, channels, checkpoints."""

from __future__ import annotations

from pathlib import Path

import locations
import numpy as np
import pytest
import torch
from PIL import Image

from pseudoris_cli.backends import cascade_rcnn
from pseudoris_cli.backends.cascade_rcnn import CascadeProposer
from pseudoris_cli.errors import UsageError
from pseudoris_cli.method.protocols import Proposal
from pseudoris_cli.rle import ious, rle_area
from pseudoris_cli.settings.models import Numerics

FIXTURES = locations.FIXTURES / "cutler"
SETTINGS = cascade_rcnn.Settings.tiny()


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Three sizes, of which the first and the last are padded alike."""
    first, second = (np.asarray(Image.open(FIXTURES / f"demo{k}.png").convert("RGB")) for k in (3, 7))
    return [first, second, np.ascontiguousarray(first[:, ::-1])]


@pytest.fixture(scope="module")
def proposer() -> CascadeProposer:
    torch.set_num_threads(1)
    return cascade_rcnn.load(SETTINGS, Numerics(), "cpu")


@pytest.fixture(scope="module")
def found(proposer: CascadeProposer, photographs: list[np.ndarray]) -> list[list[Proposal]]:
    return proposer.propose(photographs, ["a", "b", "c"])


def test_random_weights_find_something_on_photographs(
    found: list[list[Proposal]], photographs: list[np.ndarray]
) -> None:
    for proposals, image in zip(found, photographs, strict=True):
        scores = [proposal.score for proposal in proposals]
        assert 0 < len(proposals) <= 100
        assert scores == sorted(scores, reverse=True)
        assert min(scores) > SETTINGS.score_thresh
        assert {(p.rle.height, p.rle.width) for p in proposals} == {image.shape[:2]}
        assert sum(rle_area(p.rle) > 0 for p in proposals) > len(proposals) / 2


def test_the_same_bits_alone_in_any_company_and_from_a_second_load(
    proposer: CascadeProposer, found: list[list[Proposal]], photographs: list[np.ndarray]
) -> None:
    again = cascade_rcnn.load(SETTINGS, Numerics(), "cpu")
    assert again.propose(photographs[1:2], ["b"]) == found[1:2]
    assert proposer.propose(photographs[::-1], ["c", "b", "a"]) == found[::-1]


def test_off_the_cpu_only_equally_padded_images_share_a_batch(
    proposer: CascadeProposer, photographs: list[np.ndarray], found: list[list[Proposal]]
) -> None:
    """The grouping of a GPU, run here: the detections are those of single images up to rounding."""

    class Batching(CascadeProposer):
        def _groups(self, inputs):  # type: ignore[no-untyped-def]
            self.groups = list(CascadeProposer(self.network, self.settings, "cuda")._groups(inputs))
            return iter(self.groups)

    batching = Batching(proposer.network, SETTINGS, "cpu")
    together = batching.propose(photographs, ["a", "b", "c"])
    assert batching.groups == [[0, 2], [1]]
    for one, other in zip(together, found, strict=True):
        assert abs(len(one) - len(other)) <= 1
        overlap = ious([p.rle for p in one], [p.rle for p in other])
        assert np.mean(overlap.max(axis=1) > 0.99) > 0.95


def test_the_order_of_channels_matters(photographs: list[np.ndarray], found: list[list[Proposal]]) -> None:
    bgr = cascade_rcnn.load(SETTINGS.model_copy(update={"channels": "bgr"}), Numerics(), "cpu")
    assert bgr.propose(photographs[:1], ["a"]) != found[:1]
    swapped = np.ascontiguousarray(photographs[0][:, :, ::-1])
    assert bgr.propose([swapped], ["a"]) == found[:1]


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (1, 1), (2, 2000)])
def test_extreme_shapes_work(shape: tuple[int, int], proposer: CascadeProposer) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    [proposals] = proposer.propose([image], ["a"])
    assert all((p.rle.height, p.rle.width) == shape for p in proposals)


def test_no_images_and_nothing_found(photographs: list[np.ndarray]) -> None:
    strict = cascade_rcnn.load(SETTINGS.model_copy(update={"score_thresh": 1.0}), Numerics(), "cpu")
    assert strict.propose([], []) == []
    assert strict.propose(photographs[:1], ["a"]) == [[]]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near(precision: str, photographs: list[np.ndarray], found: list[list[Proposal]]) -> None:
    numerics = Numerics.model_validate({"precision": precision})
    [half] = cascade_rcnn.load(SETTINGS, numerics, "cpu").propose(photographs[:1], ["a"])
    overlap = ious([p.rle for p in half], [p.rle for p in found[0]])
    assert np.median(overlap.max(axis=1)) > 0.7
    assert half[0].score == pytest.approx(found[0][0].score, abs=0.05)


def test_a_checkpoint_round_trips_and_must_fit_the_model(
    tmp_path: Path, photographs: list[np.ndarray], found: list[list[Proposal]]
) -> None:
    path = tmp_path / "tiny.pth"
    torch.save({"model": cascade_rcnn.build(SETTINGS).state_dict()}, path)
    settings = SETTINGS.model_copy(update={"checkpoint": str(path)})
    assert cascade_rcnn.load(settings, Numerics(), "cpu").propose(photographs[:1], ["a"]) == found[:1]
    with pytest.raises(UsageError, match=r"does not fit .* missing .*misshapen"):
        cascade_rcnn.load(settings.model_copy(update={"model": "demo"}), Numerics(), "cpu")


def test_the_demo_network_is_small() -> None:
    settings = cascade_rcnn.Settings(model="demo", checkpoint="random:0")
    numbers = sum(value.numel() for value in cascade_rcnn.build(settings).state_dict().values())
    assert 1e6 < numbers < 1.5e6
