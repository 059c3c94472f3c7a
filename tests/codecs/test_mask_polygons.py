"""Polygons give back their masks through pycocotools, bit for bit: 10,000 masks of every kind, and what the rings look like."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from scipy import ndimage

from pseudoris_cli.codecs.coco_segmentation import read_mask, unpack_counts
from pseudoris_cli.codecs.mask_polygons import polygon_iou, to_polygons
from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.export.polygons import Polygons, describe
from pseudoris_cli.records import Mask
from pseudoris_cli.rle import decode_rle, encode_rle, rle_area, rle_bbox, rle_from_counts, run_lengths


def noise(rng: np.random.Generator) -> np.ndarray:
    """Touching diagonals, holes in holes, lone pixels, empty and full masks."""
    height, width = rng.integers(1, 24, 2)
    return rng.random((height, width)) < rng.choice([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


def blob(rng: np.random.Generator) -> np.ndarray:
    """A wavy blob of several pieces with holes."""
    field = ndimage.gaussian_filter(rng.standard_normal((96, 128)), rng.uniform(1.5, 8))
    return field > np.quantile(field, rng.uniform(0.3, 0.98))


def lines(rng: np.random.Generator) -> np.ndarray:
    """Lines one pixel wide that cross each other and the border of the image."""
    mask = np.zeros(rng.integers(2, 60, 2), bool)
    for _ in range(rng.integers(1, 6)):
        y, x = (rng.integers(-10, 70, 2) for _ in range(2))
        steps = np.linspace(0, 1, 200)
        ys, xs = (np.rint(a + (b - a) * steps).astype(int) for a, b in (y, x))
        inside = (ys >= 0) & (xs >= 0) & (ys < mask.shape[0]) & (xs < mask.shape[1])
        mask[ys[inside], xs[inside]] = True
    return mask


def rings(rng: np.random.Generator) -> np.ndarray:
    """Rings within rings, cut by lines."""
    y, x = np.mgrid[:80, :100] - rng.uniform(10, 90, 2)[:, None, None]
    mask = np.hypot(y, x) // rng.uniform(1, 9) % 2 == 0
    return mask & (np.abs(y - x) > rng.uniform(0, 4))


KINDS = {"noise": (noise, 6000), "blob": (blob, 1500), "lines": (lines, 2000), "rings": (rings, 600)}


def assert_exact(mask: np.ndarray) -> list[list[int]]:
    rle = encode_rle(mask)
    polygons = to_polygons(rle)
    height, width = mask.shape
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    assert np.array_equal(coco_mask.decode(merged), mask), (mask.astype(int), polygons)
    summed = coco_mask.decode(coco_mask.frPyObjects(polygons, height, width)).sum(2)  # REFER and Sa2VA add the parts
    assert np.array_equal(summed, mask)
    assert polygon_iou(rle, polygons) == 1
    return polygons


def enclosed(ring: list[int]) -> float:
    x, y = np.array(ring[0::2]), np.array(ring[1::2])
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_come_back_bit_for_bit(kind):
    """10,100 masks, with those of the scenes below; one ring a component, area and box those of the mask."""
    make, count = KINDS[kind]
    rng = np.random.default_rng(21)
    for _ in range(count):
        mask = make(rng)
        polygons = assert_exact(mask)
        if not mask.any():
            continue
        assert len(polygons) == ndimage.label(mask)[1]
        assert sum(map(enclosed, polygons)) == mask.sum()
        points = np.concatenate([np.reshape(ring, (-1, 2)) for ring in polygons])
        x, y, box_width, box_height = rle_bbox(encode_rle(mask))
        assert (*points.min(0), *points.max(0)) == (x, y, x + box_width, y + box_height)
        for ring in polygons:
            corners = list(zip(ring[0::2], ring[1::2], strict=True))
            assert len(corners) >= 4
            assert all(a != b for a, b in pairwise([*corners, corners[0]]))
            assert {type(value) for value in ring} == {int}


def scene_masks() -> Iterator[np.ndarray]:
    for number in range(20):
        yield from render_scene(scene_seed("tune", number)).masks


def test_masks_of_scenes_and_large_ragged_ones_come_back(ragged_masks):
    masks = [*scene_masks(), *ragged_masks]
    assert len(masks) > 60
    for mask in masks:
        assert_exact(np.asarray(mask, bool))


@pytest.fixture
def ragged_masks() -> list[np.ndarray]:
    """Large masks as a segmenter's are: thresholds of a picture-like field at 480 x 640, ragged and with many holes."""
    rng = np.random.default_rng(3)
    field = sum(ndimage.gaussian_filter(rng.standard_normal((480, 640)), s) * s for s in (2, 8, 40))
    return [field > np.quantile(field, q) for q in (0.05, 0.3, 0.5, 0.8, 0.95, 0.999)]


@pytest.mark.parametrize(
    ("pixels", "polygons"),
    [
        (["#"], [[0, 0, 1, 0, 1, 1, 0, 1]]),
        (["#.", ".#"], [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]),
        (["..", ".."], [[0, 0, 0, 1, 0, 2]]),
        (["##", "##"], [[0, 0, 2, 0, 2, 2, 0, 2]]),
        (["###", "#.#", "###"], [[0, 0, 1, 0, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0, 3, 0, 3, 3, 0, 3]]),
    ],
)
def test_small_masks(pixels, polygons):
    mask = np.array([[one == "#" for one in row] for row in pixels])
    assert to_polygons(encode_rle(mask)) == polygons
    assert_exact(mask)


def test_whole_and_empty_images_of_every_shape():
    for height, width in [(1, 1), (1, 7), (7, 1), (480, 640), (65535, 2), (3, 4000)]:
        for value in (False, True):
            assert_exact(np.full((height, width), value))


def test_run_lengths_are_those_of_the_code_and_runs_of_length_zero_are_no_outline():
    rng = np.random.default_rng(5)
    for _ in range(500):
        rle = encode_rle(blob(rng) if rng.random() < 0.1 else noise(rng))
        assert run_lengths(rle).tolist() == unpack_counts(rle.counts)
    odd = rle_from_counts([1, 1, 0, 1, 2, 1, 0], 2, 3)  # of a foreign encoder: the second and fourth run are one
    assert run_lengths(odd).tolist() == [1, 1, 0, 1, 2, 1, 0]
    plain = encode_rle(decode_rle(odd))
    assert to_polygons(odd) == to_polygons(plain)
    assert polygon_iou(odd, to_polygons(odd)) == 1


def test_read_mask_takes_them_back():
    mask = blob(np.random.default_rng(8))
    rle = encode_rle(mask)
    assert read_mask(to_polygons(rle), *mask.shape) == rle


def test_what_does_not_come_back_is_counted_and_named(monkeypatch):
    rle = encode_rle(np.pad(np.ones((10, 10), bool), 5))
    masks = [Mask(number, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.9) for number in range(3)]
    polygons = Polygons()
    assert polygons.figures() is None
    polygons.of("a.jpg", masks[0])
    polygons.of("a.jpg", masks[0])  # made once
    assert describe(polygons.figures()) == "polygons: all 1 masks come back exactly"
    monkeypatch.setattr("pseudoris_cli.codecs.mask_polygons.to_polygons", lambda rle: [[5, 5, 14, 5, 14, 15, 5, 15]])
    polygons.of("a.jpg", masks[1])
    polygons.of("b.jpg", masks[2])
    figures = polygons.figures()
    assert (figures["masks"], figures["exact"], figures["worst_iou"]) == (3, 1, 0.9)
    assert figures["below"]["masks"] == 2
    assert "below 0.95: a.jpg mask 1 (0.9), b.jpg mask 2 (0.9)" in describe(figures)
