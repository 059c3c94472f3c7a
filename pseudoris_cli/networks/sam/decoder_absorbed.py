"""SAM's mask decoder with the image-side projections absorbed into the tokens: the form for a GPU.

After layer 1 every prompt has image tokens of its own, keys [N, C], which attention would project by [C, H·d] matrices: three
times N·C·H·d products. Projecting the few token rows back instead gives the same scores and values,

    score = q_h · (keys + e) Wk_h = (q_h Wk_hᵀ) · keys + q_h · (e Wk)_h        (e Wk once per image)
    value = (softmax(score) keys) Wv_h + bv

with H·T = 56 rows instead of N = 4096. Image-to-token attention swaps the roles and keeps its query bias. See `decoder` for the
notation and for the parts shared with the other forms.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pseudoris_cli.networks.sam.decoder import GridDecoder, merge_heads


class AbsorbedDecoder(GridDecoder):
    """Holds the image tokens of each prompt of a chunk, [P, N, C], and nothing else of that size."""

    def prepare(self, x: Tensor, e: Tensor) -> None:
        """Compute x + bo and the part of the later scores that depends on the positional encoding, [H, d, N] each."""
        token_to_image, image_to_token = self.second.cross_attn_token_to_image, self.second.cross_attn_image_to_token
        self.x = x + self.first.cross_attn_image_to_token.out_proj.bias
        self.token_to_image_positions = self.by_channel(e @ token_to_image.k_proj.weight.t())
        self.image_to_token_positions = self.by_channel(image_to_token.q_proj(e))
        self.final_positions = self.by_channel(e @ self.final.k_proj.weight.t())

    def attend(self, tokens: Tensor) -> Tensor:
        """See GridDecoder; stores the image tokens after layer 2 in `self.keys`."""
        layer = self.first_layer(tokens)
        keys = self.buffers("keys", (len(tokens), *self.x.shape), self.x)
        torch.baddbmm(self.x, layer.attention.transpose(1, 2), layer.update, out=keys)
        keys = self.first.norm4(keys)

        queries = self.self_attention(self.second, layer.queries, tokens)
        token_to_image, image_to_token = self.second.cross_attn_token_to_image, self.second.cross_attn_image_to_token
        scores = self._scores(
            self.image_queries(token_to_image, queries + tokens),
            token_to_image.k_proj,
            self.token_to_image_positions,
            keys,
        )
        queries = self.update_tokens(self.second, queries, self._values(scores, token_to_image.v_proj, keys))

        rows, _, update = self.image_update(self.second, queries, tokens)
        scores = self._scores(rows, image_to_token.q_proj, self.image_to_token_positions, keys)
        attention = self.softmax(scores, 2, "attention 2").flatten(1, 2)
        keys.add_(image_to_token.out_proj.bias).baddbmm_(attention.transpose(1, 2), update)
        self.keys = keys = self.second.norm4(keys)

        rows = self.image_queries(self.final, self.tokens_read(queries + tokens))
        scores = self._scores(rows, self.final.k_proj, self.final_positions, keys)
        return self.tokens_read(queries) + self.final.out_proj(self._values(scores, self.final.v_proj, keys))

    def upscale(self, prompts: Tensor | None, hyper: Tensor) -> Tensor:
        """See GridDecoder."""
        keys = self.keys if prompts is None else self.keys[prompts]
        weight, bias = self.upscaler.first_weight, self.upscaler.first_bias

        def first(chosen: slice, tokens: slice) -> Tensor:
            block = keys[chosen, tokens]
            out = self.buffers("first convolution", (*block.shape[:2], weight.shape[1]), block)
            return torch.matmul(block, weight, out=out).add_(bias)

        return self.upscaler(first, hyper, self.visible)

    def _scores(self, rows: Tensor, projection: nn.Linear, positions: Tensor, keys: Tensor) -> Tensor:
        """Scores [P, H, T, N] of token rows [P, H, T, d], which absorb the projection, against image tokens [P, N, C]."""
        count, heads, T, _ = rows.shape
        scores = self.each_prompt(rows, positions, "scores").flatten(1, 2)
        absorbed = (rows @ projection.weight.unflatten(0, (heads, -1))).flatten(1, 2)
        return scores.baddbmm_(absorbed, keys.transpose(1, 2)).view(count, heads, T, -1)

    def _values(self, scores: Tensor, projection: nn.Linear, keys: Tensor) -> Tensor:
        """The result of attention [P, T, H·d]: image tokens are averaged first and projected afterwards."""
        count, heads, T, _ = scores.shape
        weights = self.softmax(scores, -1, "weights").flatten(1, 2)
        mean = torch.bmm(weights, keys).view(count, heads, T, -1)
        return merge_heads(mean @ projection.weight.unflatten(0, (heads, -1)).transpose(1, 2)) + projection.bias
