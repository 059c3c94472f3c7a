"""What a captioner that knows the place of its crop is worth in the demo's chain, beside the shipped one.

    python benchmarks/located_captions.py --placed placed.safetensors [--scenes 200] [--first 920200]

`placed.safetensors` is what training/train_coca_located.py wrote. First, of every object of the scenes, the simplest kind of text
that means it and nothing else: what places could add at all. Then for both captioners, by plain and by scale-preserving sampling,
each selection's referring share and coverage as benchmarks/listener.py prints them, and the texts by kind.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from demo_quality import Made, make
from listener import judged, listen, print_curves, print_selections

from pseudoris_cli.backends import coca
from pseudoris_cli.demo import expressions as ex
from pseudoris_cli.demo.expressions import Expression, Located, referents
from pseudoris_cli.demo.grammar import claims
from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.method import crops
from pseudoris_cli.records import CropKind, MaskedImage
from pseudoris_cli.rle import rle_bbox

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from crop_map import HEIGHT, WIDTH, crop_maps
from located_phrases import place

METHODS = ("plain", "distinctive, scale-preserving")


def told_by(target: int, objects: Sequence[Located]) -> str:
    """The simplest kind of expression that means an object and no other."""

    def by_kind() -> Iterator[tuple[str, Iterator[Expression]]]:
        own = list(claims(objects[target].attributes))
        yield "attributes", (Expression(one) for one in own)
        yield "place", (Expression(one, "place", where) for one in own for where in (*ex.SIDES, "middle"))
        yield "order", (Expression(o, "order", where, rank) for o in own for where in ex.SIDES for rank in range(3))

    for kind, said in by_kind():
        for one in said:
            meaning = referents(one, objects)
            if meaning.clear and meaning.objects == {target}:
                return kind
    return "comparison, relation or nothing"


class PlacedCaptioner(coca.CocaCaptioner):
    """CoCa whose crops have a map of the picture in their corner."""

    def _groups(self, images: Sequence[MaskedImage]) -> Any:
        plain = crops.make_crops

        def with_maps(of: Sequence[MaskedImage], kinds: Sequence[CropKind], spec: Any, device: Any) -> Any:
            made = plain(of, kinds, spec, device)
            maps = torch.from_numpy(_maps(of)).float() / 255
            for tensor in made.values():
                for channel, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True)):
                    tensor[:, channel, :HEIGHT, :WIDTH] = (maps - mean) / std
            return made

        with mock.patch.object(crops, "make_crops", with_maps):
            return super()._groups(images)


def _maps(images: Sequence[MaskedImage]) -> Any:
    import numpy as np

    found = []
    for image in images:
        height, width = image.image_rgb.shape[:2]
        boxes = [rle_bbox(mask.rle) for mask in image.masks]
        found.append(crop_maps([(x / width, y / height, w / width, h / height) for x, y, w, h in boxes]))
    return np.concatenate(found)


def make_and_listen(numbers: range, assignments: list[str], placed: bool) -> Made:
    captioner = PlacedCaptioner if placed else coca.CocaCaptioner
    with mock.patch.object(coca, "CocaCaptioner", captioner):
        made = make("evaluation", numbers, assignments, METHODS)
    listen(made, numbers, "demo_listener")
    return made


def print_kinds(made: Made) -> None:
    """Distinct texts of each kind, as the captioner says them."""
    for method, columns in made.scored.items():
        texts = {*zip(columns["image_key"], columns["mask_id"], columns["caption"], strict=True)}
        parsed = Counter(
            one.kind if (one := ex.parse_expression(text)) else "not in the grammar" for _, _, text in texts
        )
        print(f"{method}: " + ", ".join(f"{kind} {count / len(texts):.1%}" for kind, count in parsed.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--placed", required=True)
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--first", type=int, default=920_200)
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.scenes)
    told: Counter[str] = Counter()
    for number in numbers:
        scene = render_scene(scene_seed("evaluation", number))
        objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
        told.update(told_by(k, objects) for k in range(len(objects)))
    print("told apart by: " + ", ".join(f"{kind} {count / told.total():.1%}" for kind, count in told.most_common()))
    chunks = [numbers[k::2] for k in range(2)]
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for placed in (False, True):
            assignments = ["captions.max_length=20"] + [f"captions.checkpoint={options.placed}"] * placed
            jobs = [pool.submit(make_and_listen, chunk, assignments, placed) for chunk in chunks]
            made = reduce(add, (job.result() for job in jobs))
            print(f"\n## {'with the place' if placed else 'shipped'}")
            print_kinds(made)
            result = judged(made, 0.5, assignments)
            print_selections(result, 0.5)
            print_curves(result)


if __name__ == "__main__":
    main()
