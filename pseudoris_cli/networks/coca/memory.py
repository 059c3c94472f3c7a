"""The memory of captions: the encoding of crops, and the decoder with its KV caches."""

from __future__ import annotations

from typing import Any

from pseudoris_cli.networks.memory import MASKS, Memory, Work, weights_of

_CASTED = ("in_proj", "out_proj", "mlp", "conv1", "c_fc", "c_proj", "attn")
"""What of the names of parameters is stored in the configured precision (CaptionNetwork casts linear layers and attention)."""
KINDS = 4
"""Of crops."""
LOGIT_ROWS, LOGIT_COPIES = 256, 4
"""Rows whose logits are in memory at a time; own, of the others, and the terms of the softmax and the keep set."""


def memory(coca: Any, row_chunk: int, length: int, samplers: int, work: Work, masks: int = MASKS) -> Memory:
    """Of a CoCa (on the meta device, say) that samples in chunks of (row, crop) pairs; `length` in tokens."""
    weights = weights_of(coca, lambda name: work.bytes if any(part in name for part in _CASTED) else 4)
    visual, text, decoder = coca.visual, coca.text, coca.text_decoder
    side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    crops = KINDS * masks * work.images
    batch = min(max(4, row_chunk // 16 * 4), masks * work.images)
    tokens = visual.conv1.weight.shape[0] * ((side // visual.conv1.weight.shape[2]) ** 2 + 1)
    encode = batch * tokens * (16 + 11 * work.bytes)
    width, layers = decoder.text_projection.shape[0], len(decoder.resblocks)
    text_width, text_layers = text.token_embedding.weight.shape[1], len(text.transformer.resblocks)
    kept = visual.attn_pool.query.shape[0] * width  # image tokens of a crop
    pairs = min(row_chunk, crops * samplers * masks)
    rows = pairs / masks
    in_call = min(
        crops, masks * max(1, pairs // (samplers * masks * masks))
    )  # crops whose keys and values are in memory
    caches = work.bytes * length * 2 * (pairs * layers * width + rows * text_layers * text_width)
    caches += work.bytes * (crops * kept + in_call * 2 * layers * kept)
    step = pairs * width * 64 + min(rows, LOGIT_ROWS) * decoder.text_projection.shape[1] * 4 * LOGIT_COPIES
    return Memory(weights, max(encode, step) + crops * 3 * side**2 * 4, caches)
