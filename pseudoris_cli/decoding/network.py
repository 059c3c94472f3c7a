"""The parts of an open_clip CoCa that captioning needs, one token at a time.

Residual streams, norms, softmax and the vocabulary projection are float32 in every precision; weights, caches and the
other products are in the configured type.

Equal calls give equal bits on equal machines. In another batch a row may be summed in another order, as the libraries choose
kernels by a call's shape: its logits agree to about 1e-4. Many kernels treat only the last one to three rows of a small product
differently; rows are therefore padded to multiples of `ROWS` and queries to multiples of `QUERIES`, which on those gives equal
bits in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pseudoris_cli.halving import Halving

ROWS = 16
QUERIES = 4


def round_up(count: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-count // step) * step


def pad_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows of zeros below x [N, ...] up to a multiple of ROWS."""
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, round_up(len(x), ROWS) - len(x)))


@dataclass(frozen=True, slots=True)
class CrossKV:
    """The cross-attention KV cache: per layer the keys and values of all crops, [crops, image tokens, 2 x width]."""

    layers: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class CropQueries:
    """The rows that attend to each crop, as a table with one line per crop, starting with crop number `first`.

    `rows` int64 [crops, queries] holds row numbers, padded with 0; `slots` int64 [rows] is the flat index of a row in it.
    """

    first: int
    rows: torch.Tensor
    slots: torch.Tensor


@dataclass(frozen=True, slots=True)
class Position:
    """A position that the device knows and the host does not: `index` int64 [1], `unseen` bool [length] for later positions."""

    index: torch.Tensor
    unseen: torch.Tensor

    @classmethod
    def of(cls, index: torch.Tensor, length: int) -> Position:
        """The position at `index` in a KV cache of this length."""
        return cls(index, torch.arange(length, device=index.device) > index)


class CaptionNetwork:
    """Image encoder, text tower and multimodal decoder of an open_clip CoCa (Yu et al., 2022), without gradients."""

    def __init__(self, coca: Any, dtype: torch.dtype = torch.float32, compiled: bool = False) -> None:
        self.coca = coca.eval().requires_grad_(False)
        self.dtype, self.halving = dtype, Halving()
        self.device: torch.device = coca.text_decoder.text_projection.device
        self.text_blocks = list(self.coca.text.transformer.resblocks)
        self.decoder_blocks = list(
            zip(self.coca.text_decoder.resblocks, self.coca.text_decoder.cross_attn, strict=True)
        )
        self.heads: int = self.decoder_blocks[0][0].attn.num_heads
        self.text_heads: int = self.text_blocks[0].attn.num_heads
        self.width: int = self.decoder_blocks[0][0].attn.embed_dim
        self.positions: int = min(self.coca.text.positional_embedding.shape[0], self.coca.text_decoder.context_length)
        for module in coca.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.MultiheadAttention)):
                module.to(dtype)
            if isinstance(module, nn.MultiheadAttention):
                module.train()  # without dropout; eval mode would select torch's fused path, which the release never ran
        self._attend_self: Callable[..., torch.Tensor] = attend_self
        self._attend_crop: Callable[..., torch.Tensor] = attend_crop
        if compiled:
            self._attend_self = torch.compile(attend_self, dynamic=True)
            self._attend_crop = torch.compile(attend_crop, dynamic=True)

    def autocast(self) -> torch.autocast:
        """The context in which products run in the configured type."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def encode(self, crops: torch.Tensor, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops [C, 3, S, S] to unit image latents float32 [C, D] and image tokens [C, L, width] in the configured type."""

        def encode(chosen: slice) -> tuple[torch.Tensor, torch.Tensor]:
            part = crops[chosen]
            extra = round_up(len(part), QUERIES) - len(part)
            with self.autocast():
                latent, token = self.coca.visual(F.pad(part, (0, 0, 0, 0, 0, 0, 0, extra)))
            return F.normalize(latent[: len(part)].float(), dim=-1), token[: len(part)].to(self.dtype)

        latents, tokens = zip(*self.halving.chunks(len(crops), batch, encode), strict=True)
        return torch.cat(latents), torch.cat(tokens)

    def precompute_cross_kv(self, image_tokens: torch.Tensor) -> CrossKV:
        """The cross-attention KV cache of image tokens [C, L, width]: computed once per crop, read at every step."""
        crops, length, _ = image_tokens.shape
        rows = pad_rows(image_tokens.float().flatten(0, 1))
        layers = []
        with self.autocast():
            for _, cross in self.decoder_blocks:
                weight, bias = cross.attn.in_proj_weight[self.width :], cross.attn.in_proj_bias[self.width :]
                kv = F.linear(cross.ln_1_kv(rows), weight, bias)
                layers.append(kv[: crops * length].unflatten(0, (crops, length)))
        return CrossKV(tuple(layers))

    def text_step(self, tokens: torch.Tensor, caches: torch.Tensor, position: int | Position) -> torch.Tensor:
        """One step of the text tower: token ids [N] at `position` to float32 [N, width].

        The KV cache `caches` is [layers, 2, N, heads, length, width / heads]; this position is written to it.
        """
        coca = self.coca.text
        table = coca.positional_embedding
        place = table[position] if isinstance(position, int) else table.index_select(0, position.index)
        x = coca.token_embedding(tokens).float() + place.float()
        with self.autocast():
            for block, cache in zip(self.text_blocks, caches, strict=True):
                x = self._attend_self(block, x, cache, position)
        return x

    def decoder_step(
        self,
        x: torch.Tensor,
        caches: torch.Tensor,
        position: int | Position,
        cross_kv: CrossKV,
        queries: CropQueries,
    ) -> torch.Tensor:
        """One step of the multimodal decoder: text features [P, width] to hidden states float32 [P, width].

        `caches` as in `text_step`; `queries` says which crop each of the P rows attends to.
        """
        with self.autocast():
            for (block, cross), cache, kv in zip(self.decoder_blocks, caches, cross_kv.layers, strict=True):
                x = self._attend_self(block, x, cache, position)
                x = self._attend_crop(cross, x, kv[queries.first : queries.first + len(queries.rows)], queries)
            return self.coca.text_decoder.ln_final(x).float()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits float32 [N, vocabulary] of hidden states [N, width]."""
        return (pad_rows(hidden) @ self.coca.text_decoder.text_projection.float())[: len(hidden)]


def attend_self(block: Any, x: torch.Tensor, cache: torch.Tensor, position: int | Position) -> torch.Tensor:
    """A self-attention block at one position: x float32 [N, width], KV cache [2, N, heads, length, head width].

    Where only the device knows the position, the whole cache is read, and what is later is masked.
    """
    _, count, heads, _, head_width = cache.shape
    projected = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = projected.view(count, 3, heads, 1, head_width).unbind(1)
    if isinstance(position, Position):
        cache[0].index_copy_(2, position.index, key.to(cache.dtype))
        cache[1].index_copy_(2, position.index, value.to(cache.dtype))
        scores = torch.matmul(query * head_width**-0.5, cache[0].transpose(2, 3))
        weights = scores.masked_fill(position.unseen, -torch.inf).softmax(-1)
        return _finish(block, x, torch.matmul(weights, cache[1]).reshape(count, -1))
    cache[0].narrow(2, position, 1).copy_(key)  # an index would make torch.compile compile every position anew
    cache[1].narrow(2, position, 1).copy_(value)
    keys, values = cache[0].narrow(2, 0, position + 1), cache[1].narrow(2, 0, position + 1)
    weights = torch.matmul(query * head_width**-0.5, keys.transpose(2, 3)).softmax(-1)
    return _finish(block, x, torch.matmul(weights, values).reshape(count, -1))


def attend_crop(block: Any, x: torch.Tensor, kv: torch.Tensor, queries: CropQueries) -> torch.Tensor:
    """A cross-attention block: x float32 [P, width] attends to keys and values [crops, tokens, 2 x width]."""
    width, heads = x.shape[1], block.attn.num_heads
    query = F.linear(block.ln_1(x), block.attn.in_proj_weight[:width], block.attn.in_proj_bias[:width])
    query = query[queries.rows].unflatten(-1, (heads, -1)).transpose(1, 2)
    keys, values = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in kv.split(width, dim=-1))
    attended = F.scaled_dot_product_attention(query, keys, values)
    return _finish(block, x, attended.transpose(1, 2).reshape(-1, width)[queries.slots])


def _finish(block: Any, x: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
    """Output projection, residual and feed-forward of a block."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    return x + block.ls_2(block.mlp(block.ln_2(x)))
