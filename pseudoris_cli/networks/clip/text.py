"""CLIP's text tower on short texts: positions after the longest text of a batch are not computed.

This is exact, as the tower is causal and pools at the end token: the padding after it (most of the 77 positions) has no
influence. A caption of 12 tokens costs a sixth.
"""

from __future__ import annotations

import torch
from open_clip.model import CLIP


def is_causal(model: torch.nn.Module) -> bool:
    """Whether `encode_causal` holds for this model: open_clip's CLIP with a causal mask, pooled at the end token.

    False for releases of open_clip whose transformer takes the batch as the second dimension.
    """
    return (
        isinstance(model, CLIP)
        and model.attn_mask is not None
        and getattr(model, "text_pool_type", None) == "argmax"
        and getattr(model.transformer, "batch_first", False)
    )


def text_lengths(tokens: torch.Tensor) -> torch.Tensor:
    """Number of tokens up to the end token (the highest id) inclusive: int64 [N] of tokens [N, T]."""
    return tokens.argmax(dim=-1) + 1


def encode_causal(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """Text features [N, D], not normalised, of tokens [N, T] with T at most the model's context length."""
    length = tokens.shape[1]
    kind = model.transformer.get_cast_dtype()
    hidden = model.token_embedding(tokens).to(kind) + model.positional_embedding[:length].to(kind)
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    pooled = model.ln_final(hidden)[torch.arange(len(tokens), device=tokens.device), tokens.argmax(dim=-1)]
    projection = model.text_projection
    if projection is None:
        return pooled
    return projection(pooled) if isinstance(projection, torch.nn.Linear) else pooled @ projection
