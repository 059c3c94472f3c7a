"""Captions: our decoder against the plain algorithm as released, and the arithmetic of both.

    python benchmarks/captions.py [--masks 2 4 6] [--tokens 8 12 20] [--model coca_ViT-B-32] [--threads 1]
    python benchmarks/captions.py --count          # floating-point operations only
    python benchmarks/captions.py --ours --model coca_ViT-L-14 --masks 60 --tokens 5      # peak memory of ours

Both caption the same crops of one image and kind (one beam caption and ten sampled ones a mask) with the same random weights and
the same random numbers, and must agree token by token; exits 1 where they do not. The plain side (tests/support/plain_captions.py)
caches nothing, projects every position to the vocabulary, runs the decoder once more for every other crop that a row is contrasted
with, searches 6 beams in 3 groups and encodes a crop again for each of them. It samples once at the largest number of tokens: its
seconds at fewer are those after which it had computed so many, as it does the same work until there.

Operations are counted by formula for the longest captions, all prefixes different; the formula is checked against torch's counter
on a short run of both. `caption_numerics.py` measures precisions, chunks, memory and GPUs.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caption_operations import Sizes, counted, ours_operations, plain_operations

from pseudoris_cli.decoding.engine import CropGroup, Decoder
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules
from pseudoris_cli.networks.coca.build import build_coca

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import plain_captions

RULES = DecodingRules(
    start=49406,
    end=49407,
    pad=0,
    top_k=(5, 7, 9, 11, 13),
    top_p=(0.4, 0.5, 0.6, 0.7, 0.8),
    contrast=1.0,
    contrast_form="literal",
    contrast_max_masks=30,
    similarity_clamp=None,
    pad_ends_row=False,
    min_length=5,
    max_length=30,
)
ROW_CHUNK = 1024
"""The default of `captions.row_chunk`."""


@dataclass
class Run:
    """Captions of one side, [crop][beam then samplers], and the seconds of clock and processor that they took."""

    captions: list[list[tuple[int, ...]]]
    seconds: tuple[float, float]


class Watch:
    """Notes the time since it was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def make_crops(masks: int, side: int) -> torch.Tensor:
    """Crops [M, 3, side, side] of smooth noise, which random networks tell apart (cosines of .6 to .9)."""
    noise = torch.randn(masks, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    return 2 * torch.nn.functional.interpolate(noise, size=side, mode="bilinear")


def uniforms(masks: int) -> np.ndarray:
    return np.random.default_rng(0).random((masks, RULES.samplers, RULES.max_length))


@torch.inference_mode()
def run_ours(network: CaptionNetwork, crops: torch.Tensor, rules: DecodingRules) -> Run:
    """Encoder and decoder, as the stage runs them."""
    watch = Watch()
    latents, tokens = network.encode(crops, 64)
    group = CropGroup(tokens, (latents @ latents.T).numpy(), uniforms(len(crops)))
    [found] = Decoder(network, rules, 2, ROW_CHUNK).decode([group])
    return Run([[caption.tokens for caption in of_crop] for of_crop in found], watch.read())


def run_plain(coca: Any, crops: torch.Tensor, lengths: list[int]) -> dict[int, Run]:
    """The released algorithm for captions of every length: beams for each of them, the samplers once for the longest."""
    watch, step = Watch(), plain_captions.plain_step
    reached: list[tuple[float, float]] = []

    def timed_step(*given: Any) -> Any:
        found = step(*given)
        reached.append(watch.read())
        return found

    plain_captions.plain_step = timed_step
    sampled = plain_captions.plain_sampling(coca, crops, uniforms(len(crops)), replace(RULES, max_length=max(lengths)))
    plain_captions.plain_step = step
    runs = {}
    for tokens in lengths:
        watch = Watch()
        beams = plain_captions.plain_beams(coca, crops, 6, 3, replace(RULES, max_length=tokens))
        seconds = [sum(times) for times in zip(watch.read(), reached[tokens - 2], strict=True)]
        rows = [tuple(cut(row, tokens)) for row, _ in sampled]
        each = RULES.samplers
        captions = [[tuple(beam), *rows[i * each : (i + 1) * each]] for i, beam in enumerate(beams)]
        runs[tokens] = Run(captions, (seconds[0], seconds[1]))
    return runs


def cut(row: list[int], tokens: int) -> list[int]:
    """What sampling of at most `tokens` tokens, the start included, would have given: the same tokens, then the end."""
    return row if len(row) < tokens else [*row[: tokens - 2], RULES.end]


def compare_speed(coca: Any, masks: int, lengths: list[int]) -> bool:
    """Rows of the table for one number of masks; whether all tokens agreed."""
    crops, network = make_crops(masks, coca.visual.image_size[0]), CaptionNetwork(coca)
    run_ours(network, crops[:1], replace(RULES, max_length=4))  # warm up
    plain, equal = run_plain(coca, crops, lengths), True
    for tokens in lengths:
        ours, theirs = run_ours(network, crops, replace(RULES, max_length=tokens)), plain[tokens]
        pairs = list(zip(chain(*ours.captions), chain(*theirs.captions), strict=True))
        same = sum(a == b for a, b in pairs)
        equal &= same == len(pairs)
        (clock, processor), (plain_clock, plain_processor) = ours.seconds, theirs.seconds
        print(
            f"| {masks} | {tokens} | {plain_clock:.1f} | {clock:.2f} | {plain_clock / clock:.1f} | "
            f"{plain_processor / processor:.1f} | {len(pairs) / clock:.1f} | {same} of {len(pairs)} |",
            flush=True,
        )
    return equal


def show_memory(coca: Any, masks: int, lengths: list[int]) -> None:
    """Ours alone, the contrast in force for any number of masks: seconds and the peak memory of this process."""
    network, crops = CaptionNetwork(coca), make_crops(masks, coca.visual.image_size[0])
    for tokens in lengths:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = run_ours(network, crops, replace(RULES, max_length=tokens, contrast_max_masks=None))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"| {masks} | {tokens} | {done.seconds[0]:.1f} | {done.seconds[1]:.1f} | {before / 2**20:.2f} | {peak / 2**20:.2f} | "
            f"{sum(len(of_crop) for of_crop in done.captions)} |",
            flush=True,
        )


def check_formula(coca: Any, sizes: Sizes, masks: int, tokens: int) -> None:
    """Print counted and calculated operations of a short run of both sides."""
    network, rules = CaptionNetwork(coca), replace(RULES, max_length=tokens)
    crops = make_crops(masks, coca.visual.image_size[0])
    sides: dict[str, tuple[Callable[[], Any], float]] = {
        "plain": (lambda: run_plain(coca, crops, [tokens]), plain_operations(sizes, masks, tokens)),
        "ours": (lambda: run_ours(network, crops, rules), ours_operations(sizes, masks, tokens, ROW_CHUNK)),
    }
    for name, (work, formula) in sides.items():
        found = counted(work)
        print(
            f"{name}, M = {masks}, {tokens} tokens: counted {found:.4g}, formula {formula:.4g} ({formula / found:.3f})"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 12, 20])
    parser.add_argument("--model", default="coca_ViT-B-32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", action="store_true", help="operations only")
    parser.add_argument("--ours", action="store_true", help="ours alone, with its peak memory")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    coca = build_coca(options.model, 0)
    print(f"{options.model}, random weights, fp32, CPU, {options.threads} threads")
    if options.count:
        sizes = Sizes.of(coca)
        check_formula(coca, sizes, 2, 5)
        print("| masks | tokens | plain, TFLOP | ours, TFLOP | ratio |\n|---|---|---|---|---|")
        for masks in (6, 12, 30):
            plain, ours = plain_operations(sizes, masks, 30), ours_operations(sizes, masks, 30, ROW_CHUNK)
            print(f"| {masks} | 30 | {plain / 1e12:.1f} | {ours / 1e12:.2f} | {plain / ours:.1f} |")
        return 0
    if options.ours:
        print("| masks | tokens | s | CPU-s | GiB before | GiB at most | captions |\n|---|---|---|---|---|---|---|")
        for masks in options.masks:
            show_memory(coca, masks, options.tokens)
        return 0
    print(
        "| masks | tokens | plain, s | ours, s | times | of CPU-s | captions/s | equal |\n|---|---|---|---|---|---|---|---|"
    )
    equal = [compare_speed(coca, masks, options.tokens) for masks in options.masks]
    return int(not all(equal))


if __name__ == "__main__":
    sys.exit(main())
