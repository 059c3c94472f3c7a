"""segment_anything's networks in the sizes that pseudoris supports, without weights or with random ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

VECTORS = ("_token.weight", "_tokens.weight", "_point_embed.weight", "_mask_embed.weight", "_gaussian_matrix")
"""Endings of the names of parameters that are added, not multiplied by."""

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of RGB in 0..255, as in segment_anything/build_sam.py."""


@dataclass(frozen=True, slots=True)
class Size:
    """The hyperparameters of a SAM. The defaults are the official ones (segment_anything/build_sam.py)."""

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    image: int = 1024
    patch: int = 16
    window: int = 14
    decoder_width: int = 256
    decoder_heads: int = 8
    decoder_mlp: int = 2048


SIZES = {
    "vit_h": Size(1280, 32, 16, (7, 15, 23, 31)),
    "vit_l": Size(1024, 24, 16, (5, 11, 17, 23)),
    "vit_b": Size(768, 12, 12, (2, 5, 8, 11)),
    "demo": Size(128, 4, 4, (), image=256, window=0, decoder_width=64, decoder_heads=4, decoder_mlp=256),
    "tiny": Size(32, 2, 2, (1,), image=128, window=3, decoder_width=64, decoder_heads=4, decoder_mlp=64),
}


def empty(size: Size) -> Sam:
    """A SAM whose parameters are on the meta device, without memory; load them with assign=True."""
    grid = size.image // size.patch
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=size.image,
            patch_size=size.patch,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            out_chans=size.decoder_width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=size.window,
            global_attn_indexes=size.global_blocks,
        )
        prompts = PromptEncoder(size.decoder_width, (grid, grid), (size.image, size.image), mask_in_chans=16)
        transformer = TwoWayTransformer(2, size.decoder_width, size.decoder_heads, size.decoder_mlp)
        decoder = MaskDecoder(
            transformer_dim=size.decoder_width, transformer=transformer, iou_head_hidden_dim=size.decoder_width
        )
        sam = Sam(encoder, prompts, decoder).eval().requires_grad_(False)
    # not in any checkpoint
    sam.pixel_mean = torch.tensor(PIXEL_MEAN).view(-1, 1, 1)
    sam.pixel_std = torch.tensor(PIXEL_STD).view(-1, 1, 1)
    return sam


def randomise(sam: Sam, generator: torch.Generator) -> Sam:
    """Give an empty SAM random weights on the CPU, the same for the same generator state.

    Matrices preserve the variance of their input and norms start at the identity. A few changes give masks of many sizes with
    sharp edges and predicted IoUs around 0.7, so that filters and NMS matter: the sub-pixels of the upscaling are equal; its
    features and the mask heads have mean 0, so that masks are neither full nor empty; prompts change the image tokens little;
    the mask heads are scaled, the IoU head is scaled and shifted.
    """
    state = {name: _draw(name, tensor, generator) for name, tensor in sam.state_dict().items()}
    for layer in (0, 3):
        name = f"mask_decoder.output_upscaling.{layer}.weight"
        state[name] = (state[name] - state[name].mean(0))[..., :1, :1].expand_as(state[name]).contiguous()
    for layer in range(2):
        state[f"mask_decoder.transformer.layers.{layer}.cross_attn_image_to_token.out_proj.weight"] *= 0.3
    for mask in range(4):
        name = f"mask_decoder.output_hypernetworks_mlps.{mask}.layers.2.weight"
        state[name] = (state[name] - state[name].mean(0)) * 200
    state["mask_decoder.iou_prediction_head.layers.2.weight"] *= 0.3
    state["mask_decoder.iou_prediction_head.layers.2.bias"] += 0.7
    sam.load_state_dict(state, assign=True)
    return sam.requires_grad_(False)


def _draw(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random values of the shape of a parameter: 1 or 0 for vectors, else normal, scaled by what it multiplies."""
    if tensor.dim() == 1:
        return torch.full(tensor.shape, float(name.endswith("weight")))
    values = torch.randn(tensor.shape, generator=generator)
    if "pos_embed" in name or "rel_pos" in name:
        return values * 0.02
    if ".point_embeddings." in name or name.endswith(VECTORS):
        return values
    fan_in = tensor.shape[0] if "output_upscaling" in name else tensor[0].numel()
    return values * fan_in**-0.5
