"""CLIP's text tower on short texts: the columns after the longest text of a batch are never computed.

Exact: the tower is causal and pools at the end token, so what follows that token (padding, most of the 77 columns)
changes nothing. A 12-token caption costs a sixth.
"""

from __future__ import annotations

import torch
from open_clip.model import CLIP


def is_causal(model: torch.nn.Module) -> bool:
    """Whether `encode_causal` holds for this model: open_clip's CLIP with a causal mask, pooled at the end token.

    Releases of open_clip whose tower takes the batch second answer no.
    """
    return (
        isinstance(model, CLIP)
        and model.attn_mask is not None
        and getattr(model, "text_pool_type", None) == "argmax"
        and getattr(model.transformer, "batch_first", False)
    )


def text_lengths(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens up to and including the end token, which has the highest id; int64 [N] of tokens [N, T]."""
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
