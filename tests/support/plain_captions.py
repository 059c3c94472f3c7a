"""Distinctive sampling and beam search as the release computes them: without a KV cache, every position projected to logits.

The reference of the decoder's tests and of benchmarks/captions.py. Written from the description of the algorithm; all that it has
in common with the decoder is the dataclass of rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from plain_beams import outcomes

from pseudoris_cli.decoding.rules import DecodingRules


@torch.inference_mode()
def plain_logits(coca: Any, image_tokens: torch.Tensor, prefixes: torch.Tensor) -> torch.Tensor:
    """Logits [B, T, V] at every position of prefixes [B, T] beside image tokens [B, L, width].

    The class token that open_clip appends is left out: the text's positions cannot see it.
    """
    length = prefixes.shape[1]
    causal = torch.full((length, length), -torch.inf, device=prefixes.device).triu(1)
    x = coca.text.token_embedding(prefixes) + coca.text.positional_embedding[:length]
    for block in coca.text.transformer.resblocks:
        x = block(x, attn_mask=causal)
    decoder = coca.text_decoder
    for block, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
        x = block(x, attn_mask=causal)
        x = cross(x, k_x=image_tokens, v_x=image_tokens)
    return decoder.ln_final(x) @ decoder.text_projection


def plain_keep(own: torch.Tensor, sampler: int, rules: DecodingRules) -> torch.Tensor:
    """The tokens [V] that one sampler keeps of logits [V], with the release's sort and cumulative sum."""
    if sampler < len(rules.top_k):
        return own >= own.topk(min(rules.top_k[sampler], len(own))).values[-1]
    ordered, index = own.sort()
    dropped = ordered.softmax(0).cumsum(0) <= 1 - rules.top_p[sampler - len(rules.top_k)]
    dropped[-1] = False
    return torch.zeros_like(dropped).scatter(0, index, ~dropped)


def plain_encode(coca: Any, crops: torch.Tensor, rules: DecodingRules) -> tuple[torch.Tensor, torch.Tensor]:
    """Image tokens [M, L, width] and the similarities [M, M] of the crops."""
    latents, tokens = coca.visual(crops)
    latents = torch.nn.functional.normalize(latents, dim=-1)
    similarity = latents @ latents.T
    return tokens, similarity if rules.similarity_clamp is None else similarity.clamp(min=rules.similarity_clamp)


def plain_step(
    coca: Any,
    encoded: tuple[torch.Tensor, torch.Tensor],
    prefixes: torch.Tensor,
    rows: list[tuple[int, int]],
    rules: DecodingRules,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Raw own logits [V] and weights before normalisation [V] of every row (crop, sampler) after its prefix [B, T]."""
    tokens, similarity = encoded
    masks, found = len(tokens), []
    own_crop = torch.tensor([crop for crop, _ in rows], device=tokens.device)
    raw = plain_logits(coca, tokens[own_crop], prefixes)[:, -1]
    contrasted = masks > 1 and (rules.contrast_max_masks is None or masks <= rules.contrast_max_masks)
    difference = torch.zeros_like(raw)
    for step in range(1, masks if contrasted else 1):
        other_crop = (own_crop + step) % masks
        other = plain_logits(coca, tokens[other_crop], prefixes)[:, -1]
        scale = similarity[own_crop, other_crop][:, None] / (masks - 1)
        difference += scale * (other if rules.contrast_form == "literal" else other - raw)
    for row, (_, sampler) in enumerate(rows):
        own = raw[row].clone()
        if prefixes.shape[1] < rules.min_length:
            own[rules.end] = -torch.inf
        keep = plain_keep(own, sampler, rules)
        kept = own.masked_fill(~keep, -torch.inf)
        weights = (own - rules.contrast * difference[row]).masked_fill(~keep, -torch.inf).softmax(0)
        weights[rules.end] = kept.softmax(0)[rules.end]
        found.append((raw[row], weights))
    return found


@torch.inference_mode()
def plain_sampling(
    coca: Any, crops: torch.Tensor, uniforms: np.ndarray, rules: DecodingRules, similarity: torch.Tensor | None = None
) -> list[tuple[list[int], float]]:
    """Tokens and log-probability of each (crop, sampler), crop-major; `uniforms` [M, samplers, max_length].

    `similarity` [M, M] takes the place of the crops' own.
    """
    encoded = plain_encode(coca, crops, rules)
    if similarity is not None:
        encoded = encoded[0], similarity
    rows = [(crop, sampler) for crop in range(len(crops)) for sampler in range(rules.samplers)]
    tokens = [[rules.start] for _ in rows]
    logprob = np.zeros(len(rows))
    for length in range(1, rules.max_length):
        alive = [
            row
            for row in range(len(rows))
            if length == 1
            or (tokens[row][-1] != rules.end and not (rules.pad_ends_row and tokens[row][-1] == rules.pad))
        ]
        if not alive:
            break
        prefixes = torch.tensor([tokens[row] for row in alive], device=crops.device)
        steps = plain_step(coca, encoded, prefixes, [rows[row] for row in alive], rules)
        for row, (raw, weights) in zip(alive, steps, strict=True):
            chosen = rules.end
            if length < rules.max_length - 1:
                cumulative = np.cumsum(weights.double().cpu().numpy())
                chosen = int(
                    np.searchsorted(cumulative, uniforms[rows[row]][length - 1] * cumulative[-1], side="right")
                )
            tokens[row].append(chosen)
            logprob[row] += float(raw.double().log_softmax(0)[chosen])
    return [(found[1:], value) for found, value in zip(tokens, logprob.tolist(), strict=True)]


@torch.inference_mode()
def plain_beams(coca: Any, crops: torch.Tensor, beams: int, groups: int, rules: DecodingRules) -> list[list[int]]:
    """Grouped beam search on raw logits, crop by crop: tokens without the start. Every beam encodes its crop, as in the release."""
    found = []
    for crop in crops.split(1):
        image_tokens = coca.visual(crop.expand(beams, -1, -1, -1))[1]

        def score(sequences: list[tuple[int, ...]], image_tokens: torch.Tensor = image_tokens) -> np.ndarray:
            return plain_logits(coca, image_tokens, torch.tensor(sequences))[:, -1].numpy()

        found.append(next(outcomes(score, beams, groups, rules)))
    return found
