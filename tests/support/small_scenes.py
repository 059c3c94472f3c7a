"""A scene of the demo's world with its true masks, as the stages after the first see it."""

from __future__ import annotations

from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox


def scene(number: int = 0) -> MaskedImage:
    made = render_scene(scene_seed("tune", number))
    rles = [encode_rle(mask) for mask in made.masks]
    masks = tuple(Mask(place, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95) for place, rle in enumerate(rles))
    return MaskedImage(f"{number}.png", made.image_rgb, masks)
