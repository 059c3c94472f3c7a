"""Automatic masks: ours against segment_anything's SamAutomaticMaskGenerator, side by side.

    python benchmarks/masks.py [--image PICTURE] [--model vit_b] [--points 32] [--device cpu|cuda] [--threads N]
                               [--also plain bf16 fp16 compile]

Each generator runs in a process of its own, on the same weights (random by default), picture and thresholds, to compressed COCO
codes, and reports seconds (of the clock and of the processor: other work on the machine moves only the first), split at the image
encoder, and peak memory above what is resident once the weights are. Then the masks are compared: equal codes, pixels that
differ, and for every mask that one side alone kept, whether a threshold or NMS decision within 1e-4 explains it.

Random weights pass thresholds in unrealistic numbers, so the thresholds are placed first, on an 8 x 8 grid: a quarter of the masks
falls to the predicted IoU, half of the rest to the stability score. Without --image a picture of overlapping shapes with texture
is rendered. `--also` adds runs of ours: `plain` with the official decoder, whose codes must be equal; in reduced precision; and
compiled (timed after a first run, whose time is told). On a GPU the default is ViT-H, ours in fp32 and bf16, with the share of the
measured matrix-product peak.
Exits 1 where masks differ without a close call, or on more than 1e-5 of pixels (fp32).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from pseudoris_cli.backends import sam as backend
from pseudoris_cli.networks.sam.automatic import AutomaticMaskSettings, MaskCandidate
from pseudoris_cli.records import Rle
from pseudoris_cli.rle import ious
from pseudoris_cli.settings.models import Numerics

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import mask_agreement
import mask_runs
from mask_runs import Job, Measured, in_process, matmul_peak

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "compile": {"compile": True},
}


def render(path: Path) -> None:
    """A 640 x 427 picture with what photographs have: large and small overlapping things, gradients, texture."""
    rng = np.random.default_rng(0)
    picture = Image.new("RGB", (640, 427), (120, 150, 190))
    draw = ImageDraw.Draw(picture)
    for size in np.linspace(300, 12, 60):
        x, y = rng.uniform(-40, 640), rng.uniform(-40, 427)
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape(
            (x, y, x + size * rng.uniform(0.4, 1), y + size * rng.uniform(0.4, 1)), fill=tuple(rng.integers(0, 256, 3))
        )
    pixels = np.asarray(picture).astype(np.float32)
    pixels += np.linspace(-30, 30, 640)[None, :, None] + rng.normal(0, 8, (427, 640, 1))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def place_thresholds(settings: backend.Settings, image: np.ndarray, device: str) -> backend.Settings:
    """Thresholds that a realistic number of masks passes, from an 8 x 8 grid without filters."""
    changes = {"points_per_side": 8, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    generator = mask_runs.load(settings.model_copy(update=changes), Numerics(), device).generator
    masks = generator.generate([image])[0]
    iou = float(np.quantile([mask.predicted_iou for mask in masks], 0.25))
    stability = [mask.stability_score for mask in masks if mask.predicted_iou > iou and len(mask.edges)]
    return settings.model_copy(
        update={"pred_iou_thresh": round(iou, 5), "stability_score_thresh": round(float(np.median(stability)), 5)}
    )


def aligned(official: Measured, ours: Measured) -> mask_agreement.Run:
    """The official masks under our names: a prompt's three outputs are told apart by their predicted IoU."""
    by_prompt: dict[int, list[MaskCandidate]] = {}
    for mask in ours.candidates:
        by_prompt.setdefault(mask.prompt, []).append(mask)
    named: dict[int, mask_agreement.Key] = {}
    for index, mask in enumerate(official.candidates):
        near = min(
            by_prompt.get(mask.prompt, []), key=lambda m: abs(m.predicted_iou - mask.predicted_iou), default=None
        )
        close = near is not None and abs(near.predicted_iou - mask.predicted_iou) < 10 * mask_agreement.MARGIN
        named[id(mask)] = (
            mask_agreement.key(near) if near is not None and close else (mask.crop_xyxy, mask.prompt, -1 - index)
        )
    return mask_agreement.Run(
        {named[id(mask)]: mask for mask in official.kept}, {named[id(mask)]: mask for mask in official.candidates}
    )


def compare(official: Measured, ours: Measured, settings: dict[str, Any], image: np.ndarray) -> bool:
    """Print how the masks agree; whether every difference is a close call."""
    names = AutomaticMaskSettings.__dataclass_fields__
    generation = AutomaticMaskSettings(**{name: settings[name] for name in names})
    theirs = aligned(official, ours)
    mine = mask_agreement.Run(
        {mask_agreement.key(m): m for m in ours.kept}, {mask_agreement.key(m): m for m in ours.candidates}
    )
    pixels = image.shape[0] * image.shape[1]
    both = mine.every.keys() & theirs.every.keys()
    equal = sum(np.array_equal(mine.every[k].edges, theirs.every[k].edges) for k in both)
    flipped = sum(mask_agreement.pixels_different(mine.every[k], theirs.every[k]) for k in both) / max(
        1, pixels * len(both)
    )
    unexplained = mask_agreement.unexplained(mine, theirs, generation)
    print(
        f"  before NMS: {len(theirs.every)} official, {len(mine.every)} ours, {len(both)} in both, {equal} codes equal, "
        f"{flipped:.1e} of pixels differ"
    )
    print(
        f"  kept: {len(theirs.kept)} official, {len(mine.kept)} ours, {len(mine.kept.keys() & theirs.kept.keys())} in both; "
        f"all codes equal in order: {official.codes == ours.codes}; differences without a close call: {len(unexplained)}"
    )
    print(f"  {set_agreement(official, ours, image)}")
    return not unexplained and flipped <= 1e-5


def set_agreement(official: Measured, ours: Measured, image: np.ndarray) -> str:
    """How alike two sets of masks are, of whatever precision: other roundings order and filter masks in other ways."""
    overlap = ious(rles(official, image), rles(ours, image))
    agreement = (overlap.max(0).mean() + overlap.max(1).mean()) / 2 if overlap.size else 0.0
    return f"mask-set IoU {agreement:.5f}, count mismatch {abs(len(ours.codes) - len(official.codes))}"


def rles(measured: Measured, image: np.ndarray) -> list[Rle]:
    return [Rle(*image.shape[:2], code) for code in measured.codes]


def show(name: str, measured: Measured, base: Measured, on_gpu: bool) -> None:
    """One line of the table, with ratios to the official generator."""
    kinds = [("clock", measured.seconds, measured.encoder, base.seconds, base.encoder)]
    if not on_gpu:
        kinds.append(("CPU", measured.cpu_seconds, measured.cpu_encoder, base.cpu_seconds, base.cpu_encoder))
    for kind, total, encoder, base_total, base_encoder in kinds:
        rest, base_rest = total - encoder, base_total - base_encoder
        print(
            f"  {name:9} {kind:5} encoder {encoder:7.2f} s ({base_encoder / encoder:4.1f}x)  rest {rest:7.2f} s "
            f"({base_rest / rest:4.1f}x)  whole {total:7.2f} s ({base_total / total:4.1f}x)"
        )
    print(
        f"  {name:9} peak memory above the weights {measured.peak / 2**30:.2f} GB, {1 / measured.seconds:.3f} images/s, "
        f"{len(measured.codes) / measured.seconds:.1f} kept masks/s"
        + (f", first run {measured.warm_up:.0f} s" if measured.warm_up else "")
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="a picture (default: rendered)")
    parser.add_argument("--model", choices=["vit_b", "vit_l", "vit_h", "demo", "tiny"])
    parser.add_argument("--checkpoint", default="random:0", help="of that model: a name, a path or random:SEED")
    parser.add_argument("--points", type=int, default=32, help="points per side")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--decoder", default="auto", choices=["auto", "absorb", "lowrank"])
    parser.add_argument("--also", nargs="*", default=[], choices=VARIANTS, help="further runs of ours")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    on_gpu = options.device.startswith("cuda")
    with tempfile.TemporaryDirectory() as folder:
        path = options.image or Path(folder) / "picture.png"
        if not options.image:
            render(path)
        return run(options, path, on_gpu)


def run(options: argparse.Namespace, path: Path, on_gpu: bool) -> int:
    image = np.array(Image.open(path).convert("RGB"))
    settings = backend.Settings(
        model=options.model or ("vit_h" if on_gpu else "vit_b"),
        checkpoint=options.checkpoint,
        points_per_side=options.points,
        decoder=options.decoder,
    )
    settings = place_thresholds(settings, image, options.device)
    print(
        f"{settings.model} {settings.checkpoint}, {options.points} x {options.points} points, "
        f"{image.shape[1]} x {image.shape[0]} pixels, "
        f"{torch.cuda.get_device_name() if on_gpu else f'CPU, {options.threads} threads'}, torch {torch.__version__}; "
        f"pred_iou_thresh {settings.pred_iou_thresh}, stability_score_thresh {settings.stability_score_thresh}"
    )

    def job(generator: str, **numerics: Any) -> Measured:
        return in_process(Job(generator, str(path), settings.model_dump(), options.device, numerics, options.threads))

    official = job("official")
    show("official", official, official, on_gpu)
    good = True
    for name in dict.fromkeys(["ours", *(["bf16"] if on_gpu else []), *options.also]):
        numerics = VARIANTS.get(name, {})
        measured = job("plain" if name == "plain" else "ours", **numerics)
        show(name, measured, official, on_gpu)
        if on_gpu:
            share = measured.flops / measured.seconds / matmul_peak(numerics.get("precision", "fp32"))
            print(f"  {measured.flops / 1e12:.2f} TFLOP, {100 * share:.0f} % of the matrix-product peak")
        if "precision" in numerics:
            print(f"  {set_agreement(official, measured, image)}")
            continue
        agrees = compare(official, measured, settings.model_dump(), image)
        good &= agrees and (name != "plain" or measured.codes == official.codes)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
