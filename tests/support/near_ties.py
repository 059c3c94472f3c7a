"""Captions of the same images decoded in other batches: the tokens may differ where float64 says that rounding decides."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import pairwise

import numpy as np
import torch
from plain_captions import plain_encode, plain_step

from pseudoris_cli.backends.coca import CocaCaptioner
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.method.crops import make_crops
from pseudoris_cli.records import CROP_KINDS, CropKind, MaskedImage

LOGIT = 1e-4
"""What rounding may move a logit by; a cumulative probability by half of it at most."""


@torch.inference_mode()
def generate(captioner: CocaCaptioner, images: Sequence[MaskedImage]) -> list[list[list[Generated]]]:
    """Captions as tokens: [image and crop kind][mask][beam then samplers]."""
    return captioner._decoder.decode(captioner._groups(images))


def count_near_ties(
    captioner: CocaCaptioner,
    images: Sequence[MaskedImage],
    ours: list[list[list[Generated]]],
    theirs: list[list[list[Generated]]],
) -> int:
    """Assert that captions agree to what is promised; how many differ in a token, all of them sampled near-ties."""
    found = 0
    for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        image, kind = images[number // len(CROP_KINDS)], CROP_KINDS[number % len(CROP_KINDS)]
        for mask, (first, second) in enumerate(zip(mine, yours, strict=True)):
            for place, (one, other) in enumerate(zip(first, second, strict=True)):
                if one.tokens == other.tokens:
                    assert abs(one.logprob - other.logprob) <= LOGIT
                    continue
                assert place > 0, f"{image.key}: the beams of mask {mask}, {kind} differ"
                assert is_near_tie(captioner, image, kind, (mask, place - 1), (one.tokens, other.tokens)), (
                    image.key,
                    mask,
                    kind,
                )
                found += 1
    return found


@torch.inference_mode()
def is_near_tie(
    captioner: CocaCaptioner,
    image: MaskedImage,
    kind: CropKind,
    row: tuple[int, int],
    tokens: tuple[tuple[int, ...], tuple[int, ...]],
) -> bool:
    """Whether float64 leaves the first token in which two captions of a row (mask, sampler) differ to rounding."""
    step = next(place for place, (one, other) in enumerate(zip(*tokens, strict=False)) if one != other)
    coca, rules = deepcopy(captioner._network.coca).double(), captioner._rules
    crops = make_crops([image], [kind], captioner._spec, torch.device("cpu"))[kind].double()
    prefix = torch.tensor([[rules.start, *tokens[0][:step]]])
    [(own, weights)] = plain_step(coca, plain_encode(coca, crops, rules), prefix, [row], rules)
    if step + 1 < rules.min_length:
        own = own.clone()
        own[rules.end] = -torch.inf
    uniform = captioner._uniforms(image, kind)[row[0], row[1], step]
    cumulative = np.cumsum(weights.numpy())
    return set_hangs(own, row[1], rules) or bool(np.abs(cumulative / cumulative[-1] - uniform).min() < LOGIT / 2)


def set_hangs(own: torch.Tensor, sampler: int, rules: DecodingRules) -> bool:
    """Whether a sampler's keep set hangs on rounding: the last token kept and the next one nearly tie, or a mass is nearly p."""
    ordered = own.sort(descending=True).values
    if sampler < len(rules.top_k):
        last, mass_gap = rules.top_k[sampler] - 1, 1.0
    else:
        share = rules.top_p[sampler - len(rules.top_k)]
        mass = ordered.softmax(0).cumsum(0)
        last, mass_gap = int((mass < share).sum()), float((mass - share).abs().min())
    (kept, dropped), *_ = pairwise(ordered[last : last + 2].tolist())
    return mass_gap < LOGIT / 2 or kept - dropped < LOGIT
