"""The memory of scoring: a chunk of crops in the image tower, a chunk of texts in the text tower."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pseudoris_cli.networks.memory import MASKS, Memory, Work, weights_of

CAPTION = 16
"""Tokens of a caption for which is planned; a text costs its own length."""


def memory(model: Any, image_chunk: int, text_chunk: int, work: Work, masks: int = MASKS) -> Memory:
    """Of an open_clip model (on the meta device, say); its weights are all in the configured precision.

    Towers of timm and of transformers are counted as transformers of their width; only open_clip's own were compared with the
    allocator's count.
    """
    visual = model.visual
    side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    crops = min(image_chunk, masks * work.images)
    weight = _first(visual, nn.Conv2d)
    if hasattr(visual, "layer1"):  # a ResNet: its first block has the most activations, 56 a pixel at width 64
        image = crops * side**2 * 56 * weight.shape[0] / 32
    else:
        image = crops * ((side // weight.shape[2]) ** 2 + 1) * weight.shape[0] * 12
    text_tower = model.token_embedding if hasattr(model, "token_embedding") else model.text
    text = text_chunk * CAPTION * _first(text_tower, nn.Embedding).shape[1] * 16
    all_crops = 2 * masks * work.images * 3 * side**2 * 4
    return Memory(weights_of(model, lambda _: work.bytes), work.bytes * max(image, text) + all_crops)


def _first(tower: nn.Module, kind: type[nn.Module]) -> Tensor:
    """The weight of the first layer of a kind."""
    found: Tensor = next(module for module in tower.modules() if isinstance(module, kind)).weight  # type: ignore[assignment]
    return found
