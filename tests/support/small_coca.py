"""A small CoCa with random weights and a vocabulary of 97, so that the plain algorithm is quick."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pseudoris_cli.decoding.engine import CropGroup, Decoder
from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.networks.coca.build import build_coca

VOCABULARY = 97
CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        "image_size": 16,
        "patch_size": 8,
        "width": 48,
        "layers": 2,
        "head_width": 16,
        "attentional_pool": True,
        "attn_pooler_queries": 7,
        "attn_pooler_heads": 2,
        "output_tokens": True,
    },
    "text_cfg": {
        "context_length": 24,
        "vocab_size": VOCABULARY,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "embed_cls": True,
        "output_tokens": True,
    },
    "multimodal_cfg": {"context_length": 24, "vocab_size": VOCABULARY, "width": 32, "heads": 4, "layers": 3},
}


def rules(**changes: Any) -> DecodingRules:
    """Rules with a few samplers; the end token is 96, the pad 0."""
    given: dict[str, Any] = {
        "start": 95,
        "end": 96,
        "pad": 0,
        "top_k": (3, 12),
        "top_p": (0.4, 0.9),
        "contrast": 1.0,
        "contrast_form": "literal",
        "contrast_max_masks": None,
        "similarity_clamp": None,
        "pad_ends_row": False,
        "min_length": 4,
        "max_length": 10,
    }
    return DecodingRules(**(given | changes))


def network(seed: int = 0, device: str = "cpu") -> CaptionNetwork:
    """The network; its end and pad tokens are made likely enough to be sampled."""
    coca = build_coca(CONFIG, seed)
    with torch.no_grad():
        for block in (*coca.text_decoder.cross_attn, *coca.text_decoder.resblocks):
            block.attn.out_proj.weight.mul_(3)  # so that the crops matter
        coca.text_decoder.text_projection[:, 96] *= 2.5
        coca.text_decoder.text_projection[:, 0] *= 2.5
    return CaptionNetwork(coca.to(device))


def crops(count: int, seed: int = 0) -> torch.Tensor:
    """Random crops float32 [count, 3, 16, 16]."""
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def group(net: CaptionNetwork, images: torch.Tensor, samplers: int, seed: int = 0) -> CropGroup:
    """The crops of one image, encoded, with random numbers for every sampler."""
    latents, tokens = net.encode(images, 64)
    numbers = np.random.default_rng(seed).random((len(images), samplers, 24))
    return CropGroup(tokens, (latents @ latents.T).cpu().numpy(), numbers)


def assert_agree(ours: list[list[list[Generated]]], theirs: list[list[list[Generated]]]) -> None:
    """What is promised of captions decoded in other batches: equal tokens (none of the fixed cases is a near-tie), and
    log-probabilities to 1e-4."""
    mine, yours = ([caption for of_group in found for crop in of_group for caption in crop] for found in (ours, theirs))
    assert [[len(crop) for crop in of_group] for of_group in ours] == [
        [len(crop) for crop in of_group] for of_group in theirs
    ]
    assert [caption.tokens for caption in mine] == [caption.tokens for caption in yours]
    assert np.allclose([caption.logprob for caption in mine], [caption.logprob for caption in yours], rtol=0, atol=1e-4)


@torch.inference_mode()
def decode(
    net: CaptionNetwork, groups: list[CropGroup], given: DecodingRules, beams: int = 0, row_chunk: int = 64
) -> list:
    """All captions: [group][crop][beam then samplers]."""
    return Decoder(net, given, beams, row_chunk).decode(groups)
