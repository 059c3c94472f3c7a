"""Masks by transformers' Segment Anything family against its own mask-generation pipeline, and how its folders are read."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mask_agreement
import numpy as np
import pytest
import torch
from locations import FIXTURES
from PIL import Image

from pseudoris_cli.backends import registry as backends
from pseudoris_cli.backends import sam_hf
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.networks.sam.automatic import AutomaticMasks
from pseudoris_cli.networks.sam.transformers_sizes import TINY, build
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.settings.models import Numerics

SQUASHED = [name for name in TINY if name != "tiny_sam_hq"]
CASES = {
    "nothing filtered": ((160, 160), {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}),
    "landscape": ((120, 200), {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.3, "box_nms_thresh": 0.97}),
    "portrait": ((150, 90), {"pred_iou_thresh": 0.66, "stability_score_thresh": 0.6, "box_nms_thresh": 0.99}),
    "small, other offset": (
        (40, 61),
        {
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.5,
            "stability_score_offset": 2.0,
            "box_nms_thresh": 0.95,
            "points_per_side": 3,
        },
    ),
}
# image size (height, width), settings


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return np.array(Image.open(FIXTURES / "cutler" / "demo3.png").convert("RGB"))


@pytest.fixture(scope="module", params=TINY)
def made(request: pytest.FixtureRequest) -> tuple[str, Any, Any]:
    return request.param, *build(request.param, torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every small network as transformers saves it."""
    found = {}
    for name in TINY:
        model, processor = build(name, torch.Generator().manual_seed(0))
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        processor.save_pretrained(found[name])
    return found


def settings(name: str, **changes: Any) -> sam_hf.Settings:
    return sam_hf.Settings(model=name, **{"checkpoint": "random:0", "points_per_side": 5} | changes)


def pipeline_masks(
    made: tuple[str, Any, Any], image: np.ndarray, **changes: Any
) -> tuple[list[list[int]], list[float]]:
    """Run lengths and scores of transformers' own pipeline."""
    from transformers import pipeline

    ours = settings(made[0], **changes)
    found = pipeline("mask-generation", model=made[1], image_processor=made[2])(
        Image.fromarray(image),
        points_per_crop=ours.points_per_side,
        pred_iou_thresh=ours.pred_iou_thresh,
        stability_score_thresh=ours.stability_score_thresh,
        stability_score_offset=ours.stability_score_offset,
        crops_nms_thresh=ours.box_nms_thresh,
        output_rle_mask=True,
    )
    return [rle["counts"] for rle in found["rle_mask"]], found["scores"].tolist()


def our_masks(name: str, image: np.ndarray, **changes: Any) -> tuple[list[list[int]], list[float]]:
    from pseudoris_cli.networks.sam import run_lengths

    generator = sam_hf.load(settings(name, point_grid="transformers", **changes), Numerics(), "cpu").generator
    found = generator.generate([image])[0]
    pixels = image.shape[0] * image.shape[1]
    return [run_lengths.counts(mask.edges, pixels) for mask in found], [mask.predicted_iou for mask in found]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_masks_are_those_of_transformers_pipeline(
    made: tuple[str, Any, Any], photograph: np.ndarray, case: tuple[tuple[int, int], dict[str, Any]]
) -> None:
    (height, width), changes = case
    image = np.ascontiguousarray(photograph[60 : 60 + height, 40 : 40 + width])
    counts, scores = pipeline_masks(made, image, **changes)
    assert counts, "a comparison of nothing shows nothing"
    found, ious = our_masks(made[0], image, decoder="official", **changes)
    assert found == counts
    np.testing.assert_allclose(ious, scores, atol=1e-5)


@pytest.mark.parametrize("name", SQUASHED)
@pytest.mark.parametrize("form", ["absorb", "lowrank"])
def test_rewritten_decoders_give_the_same_masks(name: str, form: str, photograph: np.ndarray) -> None:
    image = np.ascontiguousarray(photograph[60:180, 40:240])
    changes = {"pred_iou_thresh": 0.66, "stability_score_thresh": 0.5, "box_nms_thresh": 0.97}
    runs = []
    for decoder in ("official", form):
        generator = sam_hf.load(settings(name, decoder=decoder, **changes), Numerics(), "cpu").generator
        runs.append(mask_agreement.run(generator, image))
    expected, found = runs
    assert expected.kept
    assert mask_agreement.unexplained(found, expected, generator.settings) == []
    assert mask_agreement.fraction_different(found, expected, image.shape[0] * image.shape[1]) <= 1e-4


@pytest.mark.parametrize("name", SQUASHED)
def test_the_grid_covers_the_whole_image(name: str, photograph: np.ndarray) -> None:
    """transformers' pipeline scales points as if images were padded; these networks squash them: its grid ends early."""
    ends = {}
    for grid in ("image", "transformers"):
        network = sam_hf.load(settings(name, point_grid=grid), Numerics(), "cpu").generator.network
        seen = []
        network.model.prompt_encoder.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs["input_points"]), with_kwargs=True
        )
        [embedding] = network.encode([network.pixels(photograph[:100, :200])])
        network.set_crop(embedding, (100, 200))
        network.decode(network.grid(10), None)
        ends[grid] = float(seen[0][..., 1].max() / network.square)
    assert ends["image"] == pytest.approx(0.95)
    assert ends["transformers"] == pytest.approx(0.475)


def test_crops_are_segmented_too(made: tuple[str, Any, Any], photograph: np.ndarray) -> None:
    image = np.ascontiguousarray(photograph[:120, :200])
    loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
    how = settings(made[0], crop_n_layers=1, crop_n_points_downscale_factor=2, decoder="official", **loose)
    generator = sam_hf.load(how, Numerics(), "cpu").generator
    asked: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    candidates = generator.candidates

    def note(rows: Any, box: tuple[int, int, int, int], *rest: Any) -> Any:
        asked[box] = [(mask.prompt, mask.mask) for mask in candidates(rows, box, *rest)]
        return candidates(rows, box, *rest)

    generator.candidates = note  # type: ignore[method-assign]
    found = generator.generate([image])[0]
    assert len(asked) == 5
    assert {mask.crop_xyxy for mask in found} == {box for box, masks in asked.items() if masks}
    for x0, y0, x1, y1 in asked.keys() - {(0, 0, 200, 120)}:
        alone = AutomaticMasks(generator.network, replace(generator.settings, crop_n_layers=0, points_per_side=2))
        inside = alone.generate([image[y0:y1, x0:x1]])[0]
        assert set(asked[x0, y0, x1, y1]) <= {(mask.prompt, mask.mask) for mask in inside}
    if made[0] == "tiny_sam2":
        assert sum(map(len, asked.values())) > len(asked[0, 0, 200, 120]), "crops bring masks of their own"


def test_hq_masks_without_the_fine_branch_are_those_of_transformers_sam(photograph: np.ndarray) -> None:
    """transformers' SamHQ leaves out what its transformer returns; its SAM, on the same weights, does not."""
    from transformers import SamConfig, SamModel

    model, processor = build("tiny_sam_hq", torch.Generator().manual_seed(0))
    own = model.config.to_dict()
    parts = {name: own[name] for name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")}
    for part in parts.values():
        part.pop("model_type", None)
    plain = SamModel(SamConfig(**parts)).eval()
    wanted = plain.state_dict()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in wanted})
    points = torch.rand(1, 6, 1, 2, generator=torch.Generator().manual_seed(0)) * 128
    pixels = processor(images=photograph[:128, :128], return_tensors="pt")["pixel_values"]
    # a token of other weights changes the others' attention, so SAM gets it as a point of its own
    from pseudoris_cli.networks.sam.transformers_hq import HqDecoder

    with torch.inference_mode():
        for layer in (model.mask_decoder.hq_mask_mlp.proj_out,):
            layer.weight.zero_()
            layer.bias.zero_()
        image, first = model.get_image_embeddings(pixels)
        sparse, dense = model.prompt_encoder(points, torch.ones(1, 6, 1, dtype=torch.int64), None, None)
        decoder = HqDecoder(model, 6)
        decoder.set_image((image, *first), (8, 8))
        found = decoder.decode(sparse[0], None)
        with_token = torch.cat([model.mask_decoder.hq_token.weight.expand(1, 6, 1, -1), sparse], 2)
        logits, ious = plain.mask_decoder(
            image_embeddings=image,
            image_positional_embeddings=plain.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=with_token,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )[:2]
    order = ious[0].argsort(1, descending=True)
    expected = logits[0].gather(1, order[..., None, None].expand_as(logits[0])).flatten(0, 1)
    torch.testing.assert_close(found.iou, ious[0].gather(1, order).flatten(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.logits, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_a_folder_gives_what_its_network_gives(name: str, folders: dict[str, Path], photograph: np.ndarray) -> None:
    loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    expected = sam_hf.load(settings(name, **loose), Numerics(), "cpu").segment([photograph[:100, :100]])
    read = sam_hf.load(settings(name, checkpoint=str(folders[name]), **loose), Numerics(), "cpu")
    assert read.segment([photograph[:100, :100]]) == expected
    assert expected[0]


@pytest.mark.parametrize("name", TINY)
def test_images_of_a_batch_and_reduced_precision(name: str, photograph: np.ndarray) -> None:
    images = [photograph[:100, :160], photograph[:60, :60]]
    loose = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    segmenter = sam_hf.load(settings(name, **loose), Numerics(), "cpu")
    together = segmenter.segment(images)
    assert together == [segmenter.segment([image])[0] for image in images]
    segmenter.generator.gather = True
    gathered = segmenter.segment(images)
    half = sam_hf.load(settings(name, **loose), Numerics(precision="bf16"), "cpu").segment(images)
    for one, other, low in zip(together, gathered, half, strict=True):
        assert abs(len(one) - len(other)) <= 1
        assert abs(len(one) - len(low)) <= len(one) // 3
        assert abs(decode_rle(one[0].rle).shape[0] - images[together.index(one)].shape[0]) == 0


def test_what_cannot_be_read_is_told_in_a_line(folders: dict[str, Path], tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        with pytest.raises(UsageError) as caught:
            sam_hf.load(settings("tiny_sam2", checkpoint=str(folder)), Numerics(), "cpu")
        message = str(caught.value)
        assert "\n" not in message
        return message

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folders["tiny_sam2"], tmp_path / name))

    with pytest.raises(MissingDependency, match="hf download nobody/nothing"):
        sam_hf.load(settings("tiny_sam2", checkpoint="nobody/nothing"), Numerics(), "cpu")
    with pytest.raises(MissingDependency, match=r"pseudoris weights fetch sam2\.1_hiera_large"):
        sam_hf.load(sam_hf.Settings(), Numerics(), "cpu")
    other = copy("other")
    (other / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "model of type 'bert'" in told(other)
    pickled = copy("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "no weights as safetensors" in told(pickled)
    bare = copy("bare")
    (bare / "preprocessor_config.json").unlink()
    assert "processor" in told(bare)
    cut = copy("cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:5000])
    assert "transformers cannot read its Sam2Model" in told(cut)
    partial = copy("partial")
    from safetensors.torch import load_file, save_file

    state = load_file(partial / "model.safetensors")
    state.pop("mask_decoder.iou_token.weight")
    save_file(state, partial / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors are missing (mask_decoder.iou_token.weight)" in told(partial)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no config.json" in told(empty)


def test_forms_that_a_network_has_not_are_refused() -> None:
    with pytest.raises(UsageError, match="SAM-HQ's decoder has no such form"):
        sam_hf.load(settings("tiny_sam_hq", decoder="lowrank"), Numerics(), "cpu")


def test_other_bytes_are_another_version(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folders["tiny_sam2"], tmp_path / "copy"))
    first = backends.identify(settings("tiny_sam2", checkpoint=str(folders["tiny_sam2"])), "masks.sam")
    assert backends.identify(settings("tiny_sam2", checkpoint=str(copy)), "masks.sam") == first
    (copy / "README.md").write_text("read by nobody")
    assert backends.identify(settings("tiny_sam2", checkpoint=str(copy)), "masks.sam") == first
    config = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(config | {"image_mean": [0.5, 0.5, 0.5]}))
    assert backends.identify(settings("tiny_sam2", checkpoint=str(copy)), "masks.sam") != first
    random = {backends.identify(settings(name), "masks.sam")["digest"] for name in TINY}
    assert len(random) == len(TINY)
