"""Our automatic masks against transformers' own `mask-generation` pipeline, on one model with random weights.

    python benchmarks/mask_pipeline.py                        # sam2.1-hiera-tiny's size, 32 x 32 points, a 640 x 427 picture
    python benchmarks/mask_pipeline.py --points 8 --model tiny_sam2

Each side runs in a process of its own, with the same weights, points, thresholds and threads; a first run of 2 x 2 points warms it
up. Printed are seconds by the clock and of the processors (which say more on a machine that others use), the peak of the resident
set above what was loaded, and how the two sets of masks agree.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from mask_runs import peak, reset_peak
from masks import render

from pseudoris_cli.backends import sam_hf
from pseudoris_cli.networks.sam import run_lengths
from pseudoris_cli.settings.models import Numerics


def settings(job: dict[str, Any], **changes: Any) -> sam_hf.Settings:
    values = {"checkpoint": "random:0", "model": job["model"], "point_grid": "transformers"}
    names = ("points_per_side", "pred_iou_thresh", "stability_score_thresh")
    return sam_hf.Settings(**values | {name: job[name] for name in names} | changes)


def run_ours(job: dict[str, Any], image: np.ndarray) -> dict[str, Any]:
    segmenter = sam_hf.load(settings(job, decoder=job["side"]), Numerics(), "cpu")
    warm = sam_hf.load(settings(job, points_per_side=2, decoder=job["side"]), Numerics(), "cpu").generator
    warm.network = segmenter.generator.network
    warm.generate([image])
    before, start, cpu = reset_peak("cpu"), time.perf_counter(), time.process_time()
    found = segmenter.generator.generate([image])[0]
    seconds, used = time.perf_counter() - start, peak("cpu") - before
    cpu = time.process_time() - cpu
    pixels = image.shape[0] * image.shape[1]
    counts = [run_lengths.counts(mask.edges, pixels) for mask in found]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "peak": used,
        "counts": counts,
        "scores": [mask.predicted_iou for mask in found],
    }


def run_pipeline(job: dict[str, Any], image: np.ndarray) -> dict[str, Any]:
    from transformers import pipeline

    network = sam_hf.load(settings(job), Numerics(), "cpu").generator.network
    generate = pipeline("mask-generation", model=network.model, image_processor=network.processor)
    picture, how = Image.fromarray(image), {"output_rle_mask": True, "crops_nms_thresh": settings(job).box_nms_thresh}
    how |= {name: job[name] for name in ("pred_iou_thresh", "stability_score_thresh")}
    generate(picture, points_per_crop=2, **how | {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0})
    before, start, cpu = reset_peak("cpu"), time.perf_counter(), time.process_time()
    found = generate(picture, points_per_crop=job["points_per_side"], **how)
    seconds, used = time.perf_counter() - start, peak("cpu") - before
    cpu = time.process_time() - cpu
    counts = [rle["counts"] for rle in found["rle_mask"]]
    return {"seconds": seconds, "cpu": cpu, "peak": used, "counts": counts, "scores": found["scores"].tolist()}


def place_thresholds(job: dict[str, Any], image: np.ndarray) -> None:
    """Thresholds that about a third of the masks of a coarse grid pass."""
    loose = settings(job, points_per_side=6, pred_iou_thresh=0.0, stability_score_thresh=0.0, box_nms_thresh=1.0)
    masks = sam_hf.load(loose, Numerics(), "cpu").generator.generate([image])[0]
    job["pred_iou_thresh"] = round(float(np.quantile([mask.predicted_iou for mask in masks], 0.4)), 4)
    stable = [m.stability_score for m in masks if m.predicted_iou > job["pred_iou_thresh"] and len(m.edges)]
    job["stability_score_thresh"] = round(float(np.quantile(stable, 0.4)), 3)


def in_process(job: dict[str, Any], side: str, image: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, __file__, "--job", json.dumps(job | {"side": side}), "--image", str(image)]
        subprocess.run([*command, "--out", str(out)], check=True)
        return json.loads(out.read_text())


def pixels_of(counts: list[int]) -> np.ndarray:
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def compare(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    equal = sum(a == b for a, b in zip(theirs["counts"], ours["counts"], strict=False))
    ious = []
    for a, b in zip(theirs["counts"], ours["counts"], strict=False):
        one, other = pixels_of(a), pixels_of(b)
        ious.append((one & other).sum() / max(1, (one | other).sum()))
    gap = max((abs(a - b) for a, b in zip(theirs["scores"], ours["scores"], strict=False)), default=0.0)
    return (
        f"{len(ours['counts'])} masks, theirs {len(theirs['counts'])}; in the same place: {equal} with equal run lengths, "
        f"lowest IoU {min(ious, default=0):.5f}; largest difference of scores {gap:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sam2_hiera_tiny")
    parser.add_argument("--points", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--job")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.job:
        job = json.loads(options.job)
        torch.set_num_threads(job["threads"])
        image = np.array(Image.open(options.image).convert("RGB"))
        found = (run_pipeline if job["side"] == "pipeline" else run_ours)(job, image)
        options.out.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.image or Path(folder) / "picture.png"
        if not options.image:
            render(path)
        job = {"model": options.model, "points_per_side": options.points, "threads": options.threads}
        job |= {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
        place_thresholds(job, np.array(Image.open(path).convert("RGB")))
        print(json.dumps(job))
        theirs = in_process(job, "pipeline", path)
        print(
            f"transformers' pipeline: {theirs['seconds']:.1f} s, of processors {theirs['cpu']:.1f} s, "
            f"{theirs['peak'] / 1e9:.2f} GB",
            flush=True,
        )
        for form in ("lowrank", "absorb", "official"):
            ours = in_process(job, form, path)
            ratio, of_cpu = theirs["seconds"] / ours["seconds"], theirs["cpu"] / ours["cpu"]
            print(
                f"ours, {form}: {ours['seconds']:.1f} s ({ratio:.1f}x), of processors {ours['cpu']:.1f} s ({of_cpu:.1f}x), "
                f"{ours['peak'] / 1e9:.2f} GB; {compare(theirs, ours)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
