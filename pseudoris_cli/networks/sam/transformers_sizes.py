"""Networks of transformers' Segment Anything family with random weights, for tests, first looks and measurements."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TINY = ("tiny_sam2", "tiny_sam3_tracker", "tiny_sam_hq", "tiny_edgetam")
NAMES = (*TINY, "sam2_hiera_tiny")
"""The last has the size of sam2.1-hiera-tiny."""

_KINDS = {
    "tiny_sam2": ("Sam2", 128),
    "tiny_sam3_tracker": ("Sam3Tracker", 112),
    "tiny_sam_hq": ("SamHQ", 128),
    "tiny_edgetam": ("EdgeTam", 128),
    "sam2_hiera_tiny": ("Sam2", 1024),
}
_PYRAMID = {"fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]]}
_VISION: dict[str, dict[str, Any]] = {
    "tiny_sam2": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [128, 128],
            "blocks_per_stage": [1, 1, 2, 1],
            "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 2, 2],
            "window_size_per_stage": [4, 4, 4, 4],
            "global_attention_blocks": [3],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        **_PYRAMID,
    },
    "tiny_sam3_tracker": {
        "backbone_config": {
            "model_type": "sam3_vit_model",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 112,
            "window_size": 4,
            "global_attn_indexes": [1],
            "pretrain_image_size": 56,
        },
        "scale_factors": [4.0, 2.0, 1.0],
        **_PYRAMID,
    },
    "tiny_sam_hq": {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "window_size": 3,
        "global_attn_indexes": [1],
        "mlp_dim": 48,
        "num_pos_feats": 16,
    },
    "tiny_edgetam": {
        "backbone_config": {
            "model_type": "timm_wrapper",
            "architecture": "test_resnet",
            "num_classes": 2,
            "model_args": {"in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]},
        },
        "backbone_channel_list": [96, 192, 48, 32],
        **_PYRAMID,
    },
    "sam2_hiera_tiny": {},
}


def build(name: str, generator: torch.Generator) -> tuple[Any, Any]:
    """A network of this name with random weights, the same for the same generator state, and its image processor."""
    model, processor = empty(name)
    return randomise(model, generator), processor


def empty(name: str) -> tuple[Any, Any]:
    """A network of this name with whatever weights, and its image processor."""
    import transformers

    kind, side = _KINDS[name]
    parts: dict[str, Any] = {"vision_config": _VISION[name]}
    if name in TINY:
        parts["prompt_encoder_config"] = {"hidden_size": 32, "image_size": side, "patch_size": side // 8}
        parts["mask_decoder_config"] = {
            "hidden_size": 32,
            "mlp_dim": 48,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 32,
        }
    if name == "tiny_sam_hq":
        parts["mask_decoder_config"]["vit_dim"] = 32
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**parts))
    return model.eval(), _processor(kind, side)


def _processor(kind: str, side: int) -> Any:
    import transformers

    if kind == "SamHQ":
        return transformers.SamImageProcessor(size={"longest_edge": side}, pad_size={"height": side, "width": side})
    family = "Sam3" if kind == "Sam3Tracker" else "Sam2"
    return getattr(transformers, f"{family}ImageProcessor")(size={"height": side, "width": side})


def randomise(model: Any, generator: torch.Generator) -> Any:
    """Give a network random weights that make masks of many sizes, with predicted IoUs that differ.

    Norms start at the identity, matrices preserve the variance of their input. Image tokens attend most to a prompt that is near,
    the sub-pixels of the upscaling are equal, and mask heads do not read what is the same everywhere in a picture.
    """
    with torch.no_grad():
        for module in model.modules():
            for tensor in (*module.parameters(recurse=False), *_positions(module)):
                tensor.copy_(_draw(module, tensor, generator))
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(
            model.shared_image_embedding.positional_embedding
        )
        decoder = model.mask_decoder
        for convolution in (decoder.upscale_conv1, decoder.upscale_conv2):
            weight = convolution.weight
            weight.copy_((weight - weight.mean(0))[..., :1, :1].expand_as(weight))
        for layer in decoder.transformer.layers:
            answer = layer.cross_attn_image_to_token
            answer.k_proj.weight.copy_(answer.q_proj.weight)
        for name in ("conv_s0", "conv_s1"):
            if hasattr(decoder, name):
                getattr(decoder, name).weight.mul_(0.3)
        decoder.iou_prediction_head.proj_out.weight.mul_(0.3)
        decoder.iou_prediction_head.proj_out.bias.add_(0.7)
        _centre_masks(model, generator)
    return model.requires_grad_(False)


def _centre_masks(model: Any, generator: torch.Generator) -> None:
    """Take out of the mask heads the direction of the mean feature, so that masks are neither full nor empty; sharpen them."""
    decoder, side = model.mask_decoder, model.prompt_encoder.input_image_size
    seen: list[Tensor] = []
    outputs = [decoder.activation, *([decoder.mask_conv2] if hasattr(decoder, "mask_conv2") else [])]
    hooks = [module.register_forward_hook(lambda _, __, found: seen.append(found)) for module in outputs]
    grid = torch.cartesian_prod(*[(torch.arange(4.0) + 0.5) * side / 4] * 2)
    model(pixel_values=torch.randn(1, 3, side, side, generator=generator), input_points=grid[None, :, None])
    for hook in hooks:
        hook.remove()
    wide = [found for found in seen if found.shape[1:3] == (decoder.upscale_conv2.out_channels, seen[-1].shape[2])]
    heads = [(head, wide[-2 if hasattr(decoder, "mask_conv2") else -1]) for head in decoder.output_hypernetworks_mlps]
    if hasattr(decoder, "mask_conv2"):
        heads.append((decoder.hq_mask_mlp, wide[-1]))
    for head, found in heads:
        mean = found.double().mean((0, 2, 3))
        mean = ((mean / mean.norm() * 1024).round() / 1024).float()  # the same on every processor
        weight = head.proj_out.weight
        weight.sub_(torch.outer(mean, mean @ weight) / mean.dot(mean)).mul_(200)


def _positions(module: nn.Module) -> list[Tensor]:
    """The random frequencies of a positional embedding: a buffer in some of the networks, a parameter in others."""
    return [buffer for name, buffer in module.named_buffers(recurse=False) if name == "positional_embedding"]


def _draw(module: nn.Module, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Random values for a parameter: 1 or 0 for vectors, else normal, scaled by what it multiplies."""
    if tensor.dim() == 1:
        return torch.full_like(tensor, float(tensor is getattr(module, "weight", None)))
    values = torch.randn(tensor.shape, generator=generator)
    if isinstance(module, nn.Embedding) or tensor is getattr(module, "positional_embedding", None):
        return values
    if not isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        return values * 0.02
    fan_in = tensor.shape[0] if isinstance(module, nn.ConvTranspose2d) else tensor[0].numel()
    return values * fan_in**-0.5
