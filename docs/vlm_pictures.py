"""Draws the pictures of docs/vlm.md: one scene of the demo in every view. Run it after a change of the drawing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
from PIL import Image

from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.prompting.views import Scene, View
from pseudoris_cli.records import Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox

PICTURE = Path(__file__).resolve().parent / "vlm-views.png"
HEIGHT = 300
GAP = 12


def main() -> None:
    """One row per view, the target being the third object."""
    scene = render_scene(scene_seed("demo", 3))
    large = np.asarray(Image.fromarray(scene.image_rgb).resize((768, 576), Image.Resampling.LANCZOS))
    masks = []
    for number, mask in enumerate(scene.masks):
        rle = encode_rle(np.asarray(Image.fromarray(mask).resize((768, 576))))
        masks.append(Mask(number, rle, rle_bbox(rle), rle_area(rle), 1.0, 1.0))
    image = MaskedImage("scene", large, tuple(masks))
    shown = [picture for view in get_args(View) for picture in Scene(image, view, 1024, 20).show(2).pictures]
    tiles = [_tile(picture.data) for picture in shown]
    rows = [tiles[0:2], tiles[2:4], tiles[4:6], tiles[6:8]]  # marks+crop, contour+crop, box+crop, then crop and rgba
    width = max(sum(tile.width + GAP for tile in row) for row in rows) + GAP
    sheet = Image.new("RGB", (width, len(rows) * (HEIGHT + GAP) + GAP), (255, 255, 255))
    for number, row in enumerate(rows):
        left = GAP
        for tile in row:
            sheet.paste(tile, (left, GAP + number * (HEIGHT + GAP)))
            left += tile.width + GAP
    sheet.quantize(48).save(PICTURE, optimize=True)


def _tile(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    if picture.mode == "RGBA":  # what is transparent, as a chequered ground
        rows, columns = np.mgrid[: picture.height, : picture.width]
        ground = np.where((rows // 16 + columns // 16) % 2, 200, 240).astype(np.uint8)
        chequered = Image.fromarray(np.dstack([ground] * 3)).convert("RGBA")
        picture = Image.alpha_composite(chequered, picture).convert("RGB")
    return picture.resize((round(picture.width * HEIGHT / picture.height), HEIGHT), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
