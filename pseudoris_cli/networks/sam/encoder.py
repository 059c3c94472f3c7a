"""SAM's image encoder (a ViT with decomposed relative positions) over segment_anything's modules and weights.

The same function as `ImageEncoderViT.forward`, exact up to rounding, with less memory and less work:

* Attention uses `scaled_dot_product_attention`. The decomposed bias rel_h[q, k_row] + rel_w[q, k_column] is
  computed for a block of queries at a time, so no [N, N] score matrix of a head is ever in memory (0.8 GB for ViT-B in float32).
* Windows that extend beyond the grid are padded after the qkv projection, where a zero token is the bias. The output projection
  then runs on the tokens of the grid only. (64 x 64 tokens become 70 x 70 in 14 x 14 windows, a fifth more.)
* The neck's norms run as LayerNorm over channels, with float32 statistics in every precision.
"""

from __future__ import annotations

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos
from torch import Tensor
from torch.nn import functional as F

CPU_BIAS, CUDA_BIAS = 1 << 20, 1 << 28
"""Elements of attention bias in memory at a time: a block that fits in the cache, or one image of 16 global heads on a GPU."""


def encode(encoder: ImageEncoderViT, pixels: Tensor) -> Tensor:
    """Embeddings [B, C, S/p, S/p] of normalised, padded images [B, 3, S, S] in the precision of the encoder's weights."""
    x = encoder.patch_embed(pixels)
    if encoder.pos_embed is not None:
        x = x + encoder.pos_embed
    for block in encoder.blocks:
        x = _block(block, x)
    narrow, norm1, mix, norm2 = encoder.neck
    x = _norm_channels(F.linear(x, narrow.weight.flatten(1)), norm1)
    return _norm_channels(mix(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), norm2).permute(0, 3, 1, 2).contiguous()


def _block(block: Block, x: Tensor) -> Tensor:
    """One transformer block on [B, H, W, C]."""
    x = x + _attention(block.attn, block.norm1(x), block.window_size)
    return x + block.mlp(block.norm2(x))


def _attention(attention: Attention, x: Tensor, window: int) -> Tensor:
    """Attention on [B, H, W, C] over the complete grid (window 0) or within windows of that side."""
    qkv, bias = attention.qkv(x), attention.qkv.bias
    batch, height, width, channels = qkv.shape
    rows, columns = height, width
    if window:
        rows, columns = -(-height // window) * window, -(-width // window) * window
        if (rows, columns) != (height, width):
            fill = bias if bias is not None else qkv.new_zeros(channels)
            padded = fill.expand(batch, rows, columns, channels).clone()
            padded[:, :height, :width] = qkv
            qkv = padded
    side_h, side_w = (window, window) if window else (rows, columns)
    # batch, window row, row, window column, column, (q, k, v), head, channel
    tiles = qkv.view(batch, rows // side_h, side_h, columns // side_w, side_w, 3, attention.num_heads, -1)
    q, k, v = tiles.permute(5, 0, 1, 3, 6, 2, 4, 7).reshape(3, -1, side_h * side_w, tiles.shape[-1]).unbind(0)
    out = _biased_attention(attention, q, k, v, (side_h, side_w))
    out = out.view(batch, rows // side_h, columns // side_w, attention.num_heads, side_h, side_w, -1)
    out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, rows, columns, -1)
    return attention.proj(out[:, :height, :width])


def _biased_attention(attention: Attention, q: Tensor, k: Tensor, v: Tensor, size: tuple[int, int]) -> Tensor:
    """softmax(q kᵀ / sqrt(d) + rel_h + rel_w) v for sequences [S, h·w, d], a block of sequences or of query rows at a time."""
    if not attention.use_rel_pos:
        return F.scaled_dot_product_attention(q[None], k[None], v[None], scale=attention.scale)[0]
    height, width = size
    tokens = height * width
    grid = q.unflatten(1, size)
    by_row = torch.einsum("shwd,hkd->shwk", grid, _relative(attention.rel_pos_h, height))
    by_column = torch.einsum("shwd,wkd->shwk", grid, _relative(attention.rel_pos_w, width))
    limit = CPU_BIAS if q.device.type == "cpu" else CUDA_BIAS
    sequences = max(1, limit // tokens**2)
    rows = min(height, max(1, limit // (tokens * width)))
    out = torch.empty_like(q)
    buffer = q.new_empty(min(sequences, len(q)), rows, width, height, width)
    for s in range(0, len(q), sequences):
        chosen = slice(s, min(s + sequences, len(q)))
        for r in range(0, height, rows):
            block = slice(r * width, min(r + rows, height) * width)
            part = by_row[chosen, r : r + rows, :, :, None]
            bias = torch.add(
                part, by_column[chosen, r : r + rows, :, None, :], out=buffer[: len(part), : part.shape[1]]
            )
            mask = bias.view(1, len(part), -1, tokens)
            attended = F.scaled_dot_product_attention(
                q[None, chosen, block], k[None, chosen], v[None, chosen], attn_mask=mask, scale=attention.scale
            )
            out[chosen, block] = attended[0]
    return out


def _relative(table: Tensor, size: int) -> Tensor:
    """The embedding of every (query, key) along a side, [size, size, d]; indices on the device, as the host waits for an upload."""
    if len(table) != 2 * size - 1:
        return get_rel_pos(size, size, table)  # interpolates
    steps = torch.arange(size, device=table.device)
    return table[steps[:, None] - steps + size - 1]


def _norm_channels(x: Tensor, norm: LayerNorm2d) -> Tensor:
    """segment_anything's LayerNorm2d on channels-last input."""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)
