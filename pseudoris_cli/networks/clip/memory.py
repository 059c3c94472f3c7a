"""The memory of scoring: a chunk of crops in the image tower, a chunk of texts in the text tower."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.networks.memory import MASKS, Memory, Work, weights_of

CAPTION = 16
"""Tokens of a caption for which is planned; a text costs its own length."""


def memory(model: Any, image_chunk: int, text_chunk: int, work: Work, masks: int = MASKS) -> Memory:
    """Of an open_clip model (on the meta device, say); its weights are all in the configured precision."""
    visual = model.visual
    side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    crops = min(image_chunk, masks * work.images)
    weight = visual.conv1.weight
    if hasattr(visual, "layer1"):  # a ResNet: its first block has the most activations, 56 a pixel at width 64
        image = crops * side**2 * 56 * weight.shape[0] / 32
    else:
        image = crops * ((side // weight.shape[2]) ** 2 + 1) * weight.shape[0] * 12
    embedding = getattr(model, "token_embedding", None) or model.text.token_embedding
    text = text_chunk * CAPTION * embedding.weight.shape[1] * 16
    all_crops = 2 * masks * work.images * 3 * side**2 * 4
    return Memory(weights_of(model, lambda _: work.bytes), work.bytes * max(image, text) + all_crops)
