"""From artifacts to what a report says: which versions, which rows, and what it admits."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest
from work_maker import WorkMaker

from pseudoris_cli.errors import UsageError
from pseudoris_cli.report import summary
from pseudoris_cli.report.choosing import ImageChoice
from pseudoris_cli.report.gather import Report, gather
from pseudoris_cli.report.versions import chain_of, find_version
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.storage.manifest import ManifestWriter
from pseudoris_cli.storage.parts import read_part
from pseudoris_cli.storage.workspace import Artifact

Maker = Callable[..., WorkMaker]


def gathered(made: WorkMaker, choice: ImageChoice | None = None, start: Artifact | None = None) -> Report:
    return gather(made.workspace, choice or ImageChoice(), start, lambda done, total: None)


def titles(report: Report) -> list[str]:
    return [notice.title for notice in summary.notices(report)]


def test_every_row_of_the_chosen_images_arrives(maker: Maker) -> None:
    made = maker(3, part_size=2)
    made.all()
    report = gathered(made, ImageChoice(2, keys=("000002.png", "000000.png")))
    assert report.deepest == "filter"
    assert [image.key for image in report.images] == ["000002.png", "000000.png"]
    for image in report.images:
        scene = made.scenes[image.key]
        assert len(image.candidates) == 44 * len(scene.masks)
        for mask in image.masks:
            assert np.array_equal(decode_rle(mask.rle), scene.masks[mask.mask_id])
        kept = [candidate for candidate in image.candidates if candidate.kept]
        assert kept
        assert all(candidate.doc is not None and candidate.doc > 1 and not candidate.reason for candidate in kept)
        assert all(candidate.reason for candidate in image.candidates if not candidate.kept)
    assert titles(report) == []
    assert [made.stage for made in report.stages] == ["masks", "captions", "scores", "filter"]
    assert report.stages[-1].counts["done"] == 3


def test_the_category_of_a_mask_arrives(maker: Maker) -> None:
    """Masks that somebody labelled carry the name of what they show."""
    made = maker(2)
    made.masks(categories={0: (17, "cat")})
    images = gathered(made).images
    assert [image.masks[0].category for image in images] == [(17, "cat")] * 2
    assert {mask.category for image in images for mask in image.masks[1:]} == {None}


def test_each_stage_alone_makes_a_report(maker: Maker) -> None:
    made = maker(2)
    masks = made.masks()
    report = gathered(made)
    assert (report.deepest, report.images[0].candidates) == ("masks", ())
    assert titles(report) == ["Up to masks"]
    captions = made.captions(masks)
    report = gathered(made)
    assert report.deepest == "captions"
    assert all(c.kept is None and c.doc is None for c in report.images[0].candidates)
    made.scores(captions)
    report = gathered(made)
    assert report.deepest == "scores"
    assert all(c.kept is None and c.doc is not None and c.noun for c in report.images[0].candidates)
    assert report.totals.figures is None
    assert len(report.totals.histograms["doc"].counts) == 1


def test_random_weights_and_partial_data_are_stated(maker: Maker) -> None:
    made = maker(5, part_size=2)
    made.captions(made.masks("random:7"), parts=1)
    report = gathered(made)
    first, second, *_ = summary.notices(report)
    assert (first.kind, first.title) == ("warning", "Random weights")
    assert "is meaningless" in first.text
    assert "sam random:7" in first.text
    assert (second.kind, second.title) == ("warning", "Partial data")
    assert second.text.startswith("Captions cover 2 of 5 images")
    assert "allow-partial" in second.text
    assert report.stages[1].pending == 3
    tiles = {tile.label: tile for tile in summary.tiles(report)}
    assert tiles["candidates"].detail == "44.0 per mask"  # of the masks that have captions


def test_failed_images_are_listed_and_shown_as_such(maker: Maker) -> None:
    made = maker(3)
    made.masks(broken="000001.png")
    report = gathered(made)
    assert [(f.stage, f.key, f.status) for f in report.failed] == [("masks", "000001.png", "failed")]
    assert "Failed images" in titles(report)
    image = report.images[1]
    assert (image.status, image.error, image.masks) == ("failed", "masks: not an image of a known format", ())


def test_a_part_made_from_another_generation_is_not_shown(maker: Maker) -> None:
    """Masks redone after a change of the image: the old captions belong to other masks."""
    made = maker(4, part_size=2)
    masks = made.masks()
    made.captions(masks)
    manifest = masks.manifest()
    columns = read_part(manifest.path_of(manifest.entries[0]))
    columns["predicted_iou"] = columns["predicted_iou"] * 0.5
    with ManifestWriter(masks.folder, "masks", "main", {}) as writer:
        writer.commit(0, columns, manifest.entries[0].images, None, {}, 1.0)
    report = gathered(made, ImageChoice(1, keys=("000000.png",)))
    assert report.images[0].masks
    assert report.images[0].candidates == ()
    assert report.stages[1].pending == 2
    assert "Partial data" in titles(report)


def test_the_versions_last_worked_on_are_shown_and_others_by_name(maker: Maker) -> None:
    made = maker(2)
    masks = made.masks()
    first = made.filter(made.scores(made.captions(masks)))
    scores = made.workspace.latest("scores")
    second = made.filter(scores, min_doc=1.2)
    assert chain_of(made.workspace)["filter"].version == second.version
    assert gathered(made, start=first).stages[-1].version == first.version
    assert chain_of(made.workspace, scores)["filter"].version == second.version  # the current one of the two
    other = made.masks("another")
    later = os.stat(made.workspace.root / "filter" / "current").st_mtime + 10
    os.utime(made.workspace.root / "masks" / "current", (later, later))
    assert list(chain_of(made.workspace)) == ["masks"]
    assert chain_of(made.workspace)["masks"].version == other.version
    assert chain_of(made.workspace, masks)["filter"].version == second.version
    assert find_version(made.workspace, first.version).stage == "filter"
    with pytest.raises(UsageError, match=rf"there are: .*{first.version} \(filter\)"):
        find_version(made.workspace, "0" * 12)


def test_an_empty_work_directory_says_what_to_run(maker: Maker) -> None:
    made = maker(2)
    with pytest.raises(UsageError, match="run `pseudoris masks` first"):
        gathered(made)
    made.workspace.open_version("masks", {"schema": 1, "upstream": None, "plan": "plan.jsonl"}, {})
    with pytest.raises(UsageError, match="committed nothing"):
        gathered(made)


def test_words_for_the_method_and_the_settings(maker: Maker) -> None:
    made = maker(2)
    made.all()
    report = gathered(made)
    assert summary.method(report) == [
        ("masks", "SAM vit_h, chosen by CutLER"),
        ("captions", "distinctive sampling, literal contrast"),
        ("filter", "DoC > 1"),
    ]
    settings = {stage: dict(rows) for stage, rows in summary.settings(report)}
    assert settings["filter"]["min_words"] == "1"  # a number, though 1 == True
    assert settings["filter"]["max_words"] == "none"
    assert settings["scores"]["clamp"] == "true"
    assert ("masks", "sam", "sam_vit_h", "0" * 64) in summary.checkpoints(report)
