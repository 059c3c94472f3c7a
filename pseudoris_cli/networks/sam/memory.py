"""The memory of automatic masks: image encoder, a chunk of prompts in the decoder, and masks at the image's pixels."""

from __future__ import annotations

from dataclasses import replace

from segment_anything.modeling import Sam

from pseudoris_cli.networks.memory import Memory, Work, weights_of
from pseudoris_cli.networks.sam.automatic import CPU_PIXELS, CUDA_PIXELS, encoded_together
from pseudoris_cli.networks.sam.encoder import CPU_BIAS, CUDA_BIAS
from pseudoris_cli.networks.sam.sizes import Size

TOKENS = 7
"""Of a prompt: IoU, four masks, point, padding."""


def memory(size: Size, sam: Sam, form: str, chunk: int, work: Work, pixels: int) -> Memory:
    """Of a SAM of this size with one form of its decoder, for images of so many pixels."""
    weights = weights_of(sam, lambda name: 4 if name.startswith(("prompt_encoder", "pixel")) else work.bytes)
    together = encoded_together(work.images) if work.on_gpu else 1
    encode, decode = _encode(size, replace(work, images=together)), _decode(size, form, chunk, work)
    return Memory(weights, max(encode, at_pixels(chunk, work, pixels)), decode)  # the decoder's buffers stay


def at_pixels(chunk: int, work: Work, pixels: int) -> float:
    """A block of masks of so many pixels: resized logits, whether each is set at three thresholds, and the counts of one."""
    limit = CUDA_PIXELS if work.on_gpu else CPU_PIXELS
    at_once = min(3 * chunk, max(1, limit // pixels))
    return at_once * pixels * (4 + 3 + 4)


def _encode(size: Size, work: Work) -> float:
    """A block's activations: residual, norm, hidden layers or q, k, v twice; and the bias of its attention."""
    tokens = (size.image // size.patch) ** 2
    heads = work.images * size.heads
    limit = CUDA_BIAS if work.on_gpu else CPU_BIAS
    bias = 1.4 * min(limit, heads * tokens**2)
    return work.bytes * (12 * work.images * tokens * size.width + bias)


def _decode(size: Size, form: str, chunk: int, work: Work) -> float:
    """A chunk of prompts: image tokens or their factors, attention of token rows, and the upscaling."""
    tokens, width = (size.image // size.patch) ** 2, size.decoder_width
    rows = TOKENS * size.decoder_heads
    upscaling = tokens * (4 * width + 48)
    if form == "official":  # every attention projects every prompt's image tokens; masks at full resolution
        return chunk * (work.bytes * tokens * 6.5 * width + 48 * tokens * 4)
    if form == "lowrank":
        held = work.bytes * tokens * (2 * rows + 4 * rows) + 4 * tokens * 2 * rows
    else:
        held = work.bytes * (tokens * (2 * width + 4 * rows) + 3 * rows * width)
    return chunk * (held + work.bytes * upscaling + 48 * tokens * 4)
