"""SAM 3 by phrases: the masks and scores of transformers' own processing, phrases from everywhere, and both uses of the masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from invoking import draw_pictures, invoke, rows_of

from pseudoris_cli.backends import sam3_concepts
from pseudoris_cli.backends.sam3_concepts import Settings
from pseudoris_cli.errors import MissingDependency, UsageError
from pseudoris_cli.networks.sam import concepts
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.settings.models import MaskSettings, Numerics

PHRASES = ("dog", "red square", "a very small car on the left")


@pytest.fixture(scope="module")
def built() -> tuple[Any, Any, Any]:
    return concepts.build_tiny(torch.Generator().manual_seed(0))


def settings(**changes: Any) -> Settings:
    return Settings.model_validate({"checkpoint": "random:0", "concepts": PHRASES, "score_thresh": 0.0} | changes)


def test_instances_are_those_of_transformers(built: tuple[Any, Any, Any]) -> None:
    model, processor, tokenize = built
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    ids, attention = tokenize(list(PHRASES))
    pixels = processor(images=image, return_tensors="pt")["pixel_values"].repeat(3, 1, 1, 1)
    with torch.inference_mode():
        outputs = model(pixel_values=pixels, input_ids=ids, attention_mask=attention)
    assert outputs.presence_logits is not None
    outputs.presence_logits = outputs.presence_logits + torch.tensor(
        [[0.0], [5.0], [-9.0]]
    )  # honoured: it decides whether a phrase is there at all
    expected = processor.post_process_instance_segmentation(outputs, 0.3, 0.5, [(64, 96)] * 3)
    assert [len(one["scores"]) > 0 for one in expected] == [False, True, False]
    forward = model.forward

    def shifted(*args: Any, **kwargs: Any) -> Any:
        found = forward(*args, **kwargs)
        found.presence_logits = found.presence_logits + torch.tensor([[0.0], [5.0], [-9.0]])
        return found

    model.forward = shifted
    try:
        found = concepts.ConceptDetector(model, processor, tokenize, PHRASES, 3).detect(image, 0.3, 0.5)
    finally:
        model.forward = forward
    assert [one.phrase for one in found] == [1] * len(expected[1]["scores"])
    np.testing.assert_allclose([one.score for one in found], expected[1]["scores"].tolist(), atol=1e-5)
    different = [(one.mask != mask.bool().numpy()).sum() for one, mask in zip(found, expected[1]["masks"], strict=True)]
    assert max(different) <= 2


def test_the_best_of_instances_that_cover_each_other_stays() -> None:
    image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    counted = []
    for overlap in (1.0, 0.5):
        [found] = sam3_concepts.load(settings(nms_iou=overlap), Numerics(), "cpu").propose([image], ["a"])
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert {one.category for one in found} <= set(enumerate(PHRASES, 1))
        counted.append(len(found))
        dense = [decode_rle(one.rle).astype(bool) for one in found]
        for i in range(len(dense)):
            for j in range(i):
                assert (dense[i] & dense[j]).sum() <= overlap * (dense[i] | dense[j]).sum()
    assert counted[0] > counted[1] > 0


def test_phrases_from_a_list_a_file_and_categories(tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_text("\ufeffred  car\n\nperson\nred car\n", encoding="utf-8")
    assert sam3_concepts.read_phrases(settings(concepts_file=str(tmp_path / "phrases.txt"))) == [
        *PHRASES,
        "red car",
        "person",
    ]
    categories = {"images": [], "annotations": [], "categories": [{"id": 3, "name": "zebra"}, {"id": 1, "name": "dog"}]}
    (tmp_path / "coco.json").write_text(json.dumps(categories))
    found = sam3_concepts.read_phrases(settings(concepts=(), concepts_file=str(tmp_path / "coco.json")))
    assert found == ["zebra", "dog"]
    with pytest.raises(UsageError, match="needs phrases"):
        sam3_concepts.read_phrases(settings(concepts=("", " ")))
    (tmp_path / "bad.json").write_text("{")
    for name, message in (("missing.txt", "cannot be read"), ("bad.json", "neither text")):
        with pytest.raises(UsageError, match=message):
            sam3_concepts.read_phrases(settings(concepts_file=str(tmp_path / name)))


def test_versions_follow_phrases_and_not_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "phrases.txt").write_text("\n".join(PHRASES))
    listed = sam3_concepts.version(settings())
    assert sam3_concepts.version(settings(concepts=(), concepts_file=str(tmp_path / "phrases.txt"))) == listed
    assert sam3_concepts.version(settings(concepts=("dog",))) != listed
    with pytest.raises(MissingDependency, match="pseudoris weights fetch sam3"):
        sam3_concepts.version(settings(checkpoint="sam3"))


def test_masks_are_final_where_they_are_said_to_be() -> None:
    chosen = MaskSettings.model_validate({"proposals": settings().model_dump()})
    final = MaskSettings.model_validate({"proposals": settings(masks="final").model_dump()})
    assert (chosen.proposals.MASKS_ARE_FINAL, final.proposals.MASKS_ARE_FINAL) == (False, True)


@pytest.mark.parametrize("segmenter", ["tiny_sam2", "tiny_sam3_tracker", "tiny_sam_hq", "tiny_edgetam"])
def test_all_stages_with_a_model_of_transformers(tmp_path: Path, segmenter: str) -> None:
    """Each segmenter with SAM 3's phrases choosing among its masks, or with the phrases' own masks, to an export."""
    draw_pictures(tmp_path / "images", 1)
    sam = {
        "masks.sam.backend": "sam_hf",
        "masks.sam.model": segmenter,
        "masks.sam.checkpoint": "random:0",
        "masks.sam.points_per_side": 3,
        "masks.sam.pred_iou_thresh": 0.0,
        "masks.sam.stability_score_thresh": 0.0,
        "masks.sam.box_nms_thresh": 1.0,
        "masks.proposals.backend": "sam3_concepts",
        "masks.proposals.checkpoint": "random:0",
        "masks.proposals.concepts": '["dog", "red car"]',
        "masks.proposals.score_thresh": 0.0,
        "masks.proposals.masks": "final" if segmenter == "tiny_edgetam" else "choose",
        "filter.min_doc": -100,
    }
    options = [part for name, value in sam.items() for part in ("--set", f"{name}={value}")]
    work = tmp_path / "work"
    done = invoke(
        "run",
        "--profile",
        "random",
        "--images",
        tmp_path / "images",
        "--out",
        tmp_path / "out",
        "--work",
        work,
        *options,
    )
    assert done.code == 0, done.stderr
    rows = rows_of(work, "masks")
    assert rows
    assert rows_of(work, "captions")
    assert {row["category"] for row in rows} <= {"dog", "red car"}
