"""One timed run of an automatic mask generator in a process of its own; `masks.py` compares such runs."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pseudoris_cli.backends import sam as backend
from pseudoris_cli.backends.automatic_masks import AutomaticSegmenter
from pseudoris_cli.networks.sam import automatic, run_lengths
from pseudoris_cli.networks.sam.automatic import MaskCandidate
from pseudoris_cli.rle import rle_from_counts
from pseudoris_cli.settings.models import Numerics


@dataclass
class Job:
    """What one process does. generator: official, ours or plain (ours with the official decoder)."""

    generator: str
    image: str
    settings: dict[str, Any]
    device: str
    numerics: dict[str, Any]
    threads: int


@dataclass
class Measured:
    """What it found: seconds (`warm_up` those of a run before), peak bytes, floating-point operations (GPU), masks."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    encoder: float = 0.0
    cpu_encoder: float = 0.0
    warm_up: float = 0.0
    peak: int = 0
    flops: int = 0
    kept: list[MaskCandidate] = field(default_factory=list)
    candidates: list[MaskCandidate] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)


class Clock:
    """Adds up the time of calls, on the clock and on the processor."""

    def __init__(self, device: str) -> None:
        self.device, self.seconds, self.cpu_seconds = device, 0.0, 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            self.wait()
            start, cpu_start = time.perf_counter(), time.process_time()
            result = function(*arguments)
            self.wait()
            self.seconds += time.perf_counter() - start
            self.cpu_seconds += time.process_time() - cpu_start
            return result

        return run

    def wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def load(settings: backend.Settings, numerics: Numerics, device: str) -> AutomaticSegmenter:
    """Our generator; with random weights every point gets masks of its own, as the points of a trained SAM do.

    Random weights as they are give full-size networks masks over the whole picture, of which NMS leaves one. Here image tokens
    project their keys as their queries, so that they attend most to a prompt that is near, and prompts change them more.
    """
    segmenter = backend.load(settings, numerics, device)
    if settings.checkpoint.startswith("random:"):
        for layer in segmenter.generator.network.sam.mask_decoder.transformer.layers:
            answer = layer.cross_attn_image_to_token
            answer.k_proj.weight.copy_(answer.q_proj.weight)
            answer.out_proj.weight.mul_(3)
    return segmenter


def matmul_peak(precision: str) -> float:
    """Operations a second of a large matrix product."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    clock = Clock("cuda")
    a @ a
    clock.timed(lambda: [a @ a for _ in range(10)])()
    return 10 * 2 * 8192**3 / clock.seconds


def measure_ours(job: Job, image: np.ndarray) -> Measured:
    """Our generator through its backend."""
    settings = backend.Settings.model_validate(
        job.settings | ({"decoder": "official"} if job.generator == "plain" else {})
    )
    numerics = Numerics.model_validate(job.numerics)
    segmenter = load(settings, numerics, job.device)
    generator, result, whole, encoder = segmenter.generator, Measured(), Clock(job.device), Clock(job.device)
    inner, generate = generator.candidates, generator.generate

    def candidates(*arguments: Any) -> list[MaskCandidate]:
        result.candidates = inner(*arguments)
        return result.candidates

    def keep(images: list[np.ndarray]) -> list[list[MaskCandidate]]:
        found = generate(images)
        result.kept = found[0]
        return found

    if job.device.startswith("cuda") and not numerics.compile:
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:  # also warms up
            segmenter.segment([image])
        result.flops = counter.get_total_flops()
    elif numerics.compile:
        warm_up = Clock(job.device)
        warm_up.timed(segmenter.segment)([image])
        result.warm_up = warm_up.seconds
    generator.candidates, generator.generate = candidates, keep  # type: ignore[method-assign]
    generator.network.encode = encoder.timed(generator.network.encode)
    before = reset_peak(job.device)
    segments = whole.timed(segmenter.segment)([image])[0]
    result.peak = peak(job.device) - before
    result.codes = [segment.rle.counts for segment in segments]
    result.kept = [mask for mask in result.kept if len(mask.edges)]
    return filled(result, whole, encoder)


def measure_official(job: Job, image: np.ndarray) -> Measured:
    """SamAutomaticMaskGenerator on the same weights; its candidates are noted as they pass."""
    from segment_anything import SamAutomaticMaskGenerator

    settings = backend.Settings.model_validate(job.settings)
    sam = load(settings, Numerics(), job.device).generator.network.sam
    rules = {name: getattr(settings, name) for name in automatic.AutomaticMaskSettings.__dataclass_fields__}
    generator = SamAutomaticMaskGenerator(sam, output_mode="coco_rle", **rules)
    result, whole, encoder = Measured(), Clock(job.device), Clock(job.device)
    inner, box = generator._process_batch, (0, 0, image.shape[1], image.shape[0])
    scale = np.array([settings.points_per_side / image.shape[1], settings.points_per_side / image.shape[0]])

    def note(points: Any, iou: float, stability: float, counts: list[int], corners: Any) -> MaskCandidate:
        column, row = (np.array(points) * scale).astype(int)
        edges = np.cumsum(counts)[: 2 * (len(counts) // 2)]
        return MaskCandidate(
            int(row * settings.points_per_side + column), 0, iou, stability, edges, tuple(corners), box
        )

    batches = []

    def process(*arguments: Any) -> Any:
        batches.append(inner(*arguments))
        return batches[-1]

    generator._process_batch = process
    if job.device.startswith("cuda"):
        generator.generate(image)
        batches.clear()
    sam.image_encoder.forward = encoder.timed(sam.image_encoder.forward)
    before = reset_peak(job.device)
    records = whole.timed(generator.generate)(image)
    result.peak = peak(job.device) - before
    for batch in batches:
        columns = (batch["points"], batch["iou_preds"], batch["stability_score"], batch["rles"], batch["boxes"])
        for points, iou, stability, rle, corners in zip(*columns, strict=True):
            mask = note(points.tolist(), iou.item(), stability.item(), rle["counts"], corners.tolist())
            result.candidates.append(mask)
    result.codes = [record["segmentation"]["counts"] for record in records if record["area"]]
    by_code = {(compressed(mask, image), mask.predicted_iou): mask for mask in result.candidates}
    result.kept = [by_code[r["segmentation"]["counts"], r["predicted_iou"]] for r in records if r["area"]]
    return filled(result, whole, encoder)


def compressed(mask: MaskCandidate, image: np.ndarray) -> str:
    pixels = image.shape[0] * image.shape[1]
    return rle_from_counts(run_lengths.counts(mask.edges, pixels), *image.shape[:2]).counts


def filled(result: Measured, whole: Clock, encoder: Clock) -> Measured:
    result.seconds, result.cpu_seconds = whole.seconds, whole.cpu_seconds
    result.encoder, result.cpu_encoder = encoder.seconds, encoder.cpu_seconds
    return result


def reset_peak(device: str) -> int:
    """Bytes in use now; the peak is counted from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak of the resident set to its present size
    return peak(device)


def peak(device: str) -> int:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def in_process(job: Job) -> Measured:
    """Run a job in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.pickle"
        command = [sys.executable, __file__, json.dumps(asdict(job)), str(out)]
        subprocess.run(command, check=True)
        return pickle.loads(out.read_bytes())  # written by ourselves


def work(job: Job, out: Path) -> None:
    torch.set_num_threads(job.threads)
    image = np.array(Image.open(job.image).convert("RGB"))
    measure = measure_official if job.generator == "official" else measure_ours
    with torch.inference_mode():
        out.write_bytes(pickle.dumps(measure(job, image)))


if __name__ == "__main__":
    work(Job(**json.loads(sys.argv[1])), Path(sys.argv[2]))
