"""The renderer: determinism, masks that partition, near-duplicates, disjoint seeds, truth files."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from pseudoris_cli.demo.drawing import PAINT
from pseudoris_cli.demo.grammar import COLOURS, SHAPES, SIZES, TEXTURES, parse
from pseudoris_cli.demo.world import HEIGHT, MIN_PIXELS, SEEDS_PER_SPLIT, SPLITS, WIDTH, render_scene, scene_seed
from pseudoris_cli.evaluation.truth import read_truth, write_scenes
from pseudoris_cli.rle import decode_rle

SCENES = [render_scene(scene_seed("tune", index)) for index in range(60)]


def test_the_same_seed_gives_the_same_pixels():
    first, again, other = (render_scene(seed) for seed in (7, 7, 8))
    assert np.array_equal(first.image_rgb, again.image_rgb)
    assert np.array_equal(first.masks, again.masks)
    assert first.attributes == again.attributes
    assert not np.array_equal(first.image_rgb, other.image_rgb)


def test_splits_have_disjoint_seeds():
    ends = [(scene_seed(split, 0), scene_seed(split, SEEDS_PER_SPLIT - 1)) for split in SPLITS]
    for (first, last), (following, _) in itertools.pairwise(sorted(ends)):
        assert first <= last < following
    for index in (-1, SEEDS_PER_SPLIT):
        with pytest.raises(ValueError, match="outside"):
            scene_seed("demo", index)


@pytest.mark.parametrize("scene", SCENES[:20])
def test_masks_are_disjoint_and_large_enough(scene):
    assert scene.image_rgb.shape == (HEIGHT, WIDTH, 3)
    assert scene.image_rgb.dtype == np.uint8
    assert scene.masks.shape == (len(scene.attributes), HEIGHT, WIDTH)
    assert scene.masks.dtype == bool
    assert scene.masks.sum(0).max() == 1
    assert scene.masks.sum((1, 2)).min() >= MIN_PIXELS
    assert 3 <= len(scene.attributes) <= 7


def test_an_object_has_the_colour_that_its_attributes_say():
    plain = [
        (scene.image_rgb[mask].astype(float).mean(0), attributes.colour)
        for scene in SCENES
        for mask, attributes in zip(scene.masks, scene.attributes, strict=True)
        if attributes.texture == "plain" and attributes.size == "large"
    ]
    assert len(plain) > 30
    names = list(PAINT)
    # outlines are darker and the light varies, so colours are compared by their direction
    direction = np.array([PAINT[name] for name in names], float)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    guesses = [names[int(np.argmax(direction @ (mean / np.linalg.norm(mean))))] for mean, _ in plain]
    assert np.mean([guess == name for guess, (_, name) in zip(guesses, plain, strict=True)]) > 0.95


def test_large_objects_are_larger_than_small_ones():
    extent = {"small": [], "large": []}
    for scene in SCENES:
        for mask, attributes in zip(scene.masks, scene.attributes, strict=True):
            ys, xs = np.nonzero(mask)
            extent[attributes.size].append(max(np.ptp(xs), np.ptp(ys)) + 1)
    assert max(extent["small"]) < np.median(extent["large"])


def test_the_world_is_varied_and_full_of_near_duplicates():
    objects = [attributes for scene in SCENES for attributes in scene.attributes]
    for attribute, values in (("shape", SHAPES), ("colour", COLOURS), ("texture", TEXTURES), ("size", SIZES)):
        assert {getattr(one, attribute) for one in objects} == set(values)

    def named(one, names):
        return tuple(getattr(one, name) for name in names)

    def fraction_unique(*names):
        return np.mean(
            [
                sum(named(other, names) == named(one, names) for other in scene.attributes) == 1
                for scene in SCENES
                for one in scene.attributes
            ]
        )

    assert fraction_unique("shape") < 0.2
    assert fraction_unique("shape", "colour") < 0.6
    assert fraction_unique("shape", "colour", "texture", "size") > 0.95


def test_written_scenes_read_back_as_they_were_rendered(tmp_path):
    path = write_scenes(tmp_path, "tune", 3)
    known = read_truth(path)
    for index, image in enumerate(known):
        scene = SCENES[index]
        assert image.key == f"{index:06d}.png"
        assert np.array_equal(np.asarray(Image.open(tmp_path / image.key)), scene.image_rgb)
        assert np.array_equal(np.stack([decode_rle(rle) for rle in image.masks]), scene.masks)
        assert image.attributes == scene.attributes
    for image in json.loads(path.read_text())["images"]:
        for annotation in image["objects"]:
            assert len(annotation["phrases"]) == 8
            for phrase in annotation["phrases"]:
                claim = parse(phrase["text"])
                holders = [other for other in known[image["seed"] % SEEDS_PER_SPLIT].attributes if claim.holds(other)]
                assert (len(holders) == 1) == phrase["unique"]
                assert holders
