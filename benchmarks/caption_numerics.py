"""Captions through the backend: rate, memory, and whether precisions, chunks and compilation give the same captions.

    python benchmarks/caption_numerics.py [--model M] [--checkpoint C] [--device cpu|cuda] [--masks N] [--images N] [--tokens N] ...

A variant is PRECISION[,compile][,chunk=N]; the first is what the others are compared with. All caption the same images with the
same weights: smooth noise and random weights, or with `--checkpoint demo_coca` the demo's. Prints captions and images a second
(the second of two calls where --warm is given, as compilation takes its time), peak memory (of the process on a CPU), on a GPU the
share of the measured matrix-product peak, and the share of captions of equal text, of beams and of samplers, with
the largest difference of log-probabilities among equal ones.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import numpy as np
import torch
from mask_runs import matmul_peak
from torch.utils.flop_counter import FlopCounterMode

from pseudoris_cli.backends import coca
from pseudoris_cli.demo import world as demo_world
from pseudoris_cli.records import Caption, Mask, MaskedImage
from pseudoris_cli.rle import encode_rle, rle_area, rle_bbox
from pseudoris_cli.settings.models import Numerics


def render(number: int, masks: int) -> MaskedImage:
    """A 640 x 480 picture of smooth noise with rectangular masks."""
    rng = np.random.default_rng(number)
    noise = torch.from_numpy(rng.normal(size=(1, 3, 12, 16)))
    smooth = torch.nn.functional.interpolate(noise, size=(480, 640), mode="bilinear")[0].permute(1, 2, 0).numpy()
    found = []
    for mask_id in range(masks):
        h, w = rng.integers(40, 200, 2)
        y, x = rng.integers(0, 480 - h), rng.integers(0, 640 - w)
        shape = np.zeros((480, 640), bool)
        shape[y : y + h, x : x + w] = True
        rle = encode_rle(shape)
        found.append(Mask(mask_id, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95))
    return MaskedImage(f"{number}.png", (127 + 80 * smooth).clip(0, 255).astype(np.uint8), tuple(found))


def scene(number: int) -> MaskedImage:
    """A scene of the demo's world with its true masks."""
    made = demo_world.render_scene(demo_world.scene_seed("tune", number))
    rles = [encode_rle(mask) for mask in made.masks]
    found = tuple(Mask(place, rle, rle_bbox(rle), rle_area(rle), 0.9, 0.95) for place, rle in enumerate(rles))
    return MaskedImage(f"{number}.png", made.image_rgb, found)


def run(variant: str, images: list[MaskedImage], options: argparse.Namespace) -> list[Caption]:
    """Caption the images under one variant and print what it cost."""
    precision, *more = variant.split(",")
    changes: dict[str, Any] = {name: int(value) for name, value in (m.split("=") for m in more if "=" in m)}
    settings = coca.Settings(model=options.model, checkpoint=options.checkpoint, max_length=options.tokens)
    settings = settings.model_copy(update={"row_chunk": changes.get("chunk", settings.row_chunk)})
    numerics = Numerics.model_validate({"precision": precision, "compile": "compile" in more})
    captioner, cuda = coca.load(settings, numerics, options.device), options.device.startswith("cuda")
    operations = 0
    for _ in range(1 + options.warm):
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        found = [caption for captions in captioner.caption(images) for caption in captions]
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    if cuda and not numerics.compile:
        with FlopCounterMode(display=False) as counter:
            captioner.caption(images)
        operations = counter.get_total_flops()
    peak = torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    share = f"{operations / seconds / matmul_peak(precision):.0%}" if operations else "-"
    print(
        f"| {variant} | {seconds:.1f} | {len(found) / seconds:.1f} | {len(images) / seconds:.3f} | {peak / 1e9:.1f} | "
        f"{share} | {captioner.halvings} |",
        end="",
        flush=True,
    )
    return found


def agreement(found: list[Caption], expected: list[Caption]) -> str:
    """Equal captions of beams and of samplers, and how far log-probabilities of equal ones are apart."""
    pairs = list(zip(found, expected, strict=True))
    told = []
    for beam in (True, False):
        here = [one.caption == other.caption for one, other in pairs if (one.sampler == "beam") is beam]
        told.append(f"{sum(here)} of {len(here)}")
    same = [
        (a, b) for a, b in pairs if a.caption == b.caption and "\ufffd" not in a.caption
    ]  # else of other tokens, maybe
    apart = max((abs(a.logprob - b.logprob) for a, b in same), default=float("nan"))
    return f" {told[0]} | {told[1]} | {apart:.1e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--model", default="coca_ViT-L-14")
    parser.add_argument("--checkpoint", default="random:0")
    parser.add_argument("--masks", type=int, default=6)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--variants", nargs="+", default=["fp32", "bf16", "fp16", "fp32,compile", "bf16,chunk=1024"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    of_demo = options.checkpoint == "demo_coca"
    images = [scene(number) if of_demo else render(number, options.masks) for number in range(options.images)]
    masks = sum(len(image.masks) for image in images)
    print(f"{options.model}, {options.checkpoint}, {options.images} images, {masks} masks, {options.tokens} tokens")
    print("| variant | s | captions/s | img/s | peak GB | of peak | halved | beams equal | samples equal | logprob |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    expected: list[Caption] = []
    for variant in options.variants:
        found = run(variant, images, options)
        expected = expected or found
        print(agreement(found, expected), flush=True)


if __name__ == "__main__":
    main()
