"""SAM's mask decoder with image tokens in factored form: the fewest operations, for a CPU.

The notation is that of `decoder`. Every prompt changes the N image tokens by matrices of rank J = 56, so the tokens are never
computed; they are represented as

    keys = c ∘ S + Rᵀ F + b        S [N, C] and b [C] shared by all prompts; c [N], R [r, N], F [r, C] of one prompt

and each use of keys projects S once per image and the r rows of F once per prompt. LayerNorm preserves this form. Centring
(subtracting the mean over C, written cen) is linear, so the mean drops out; the variance follows from norms, cross terms and
a quadratic form. With g1, b1, g2, b2 the weights and biases of the norms of layers 1 and 2, A1, A2 and B1, B2 the attention
and update of their image-to-token attention, bo1, bo2 its output biases, v1, v2 its values, Wo1, Wo2 its output projections:

    once per image   s1 = cen(x + bo1);  s2 = cen(s1 ∘ g1);  f0 = cen(b1 + bo2)
    norm of layer 1  C var = ‖s1‖² + Σ_j A1_j (2 s1·cen(B1_j) + [G A1]_j)        G = cen(B1) cen(B1)ᵀ
                     s1·cen(B1_j) = v1_j · (s1 Wo1ᵀ)                             rank d per head instead of C
                     keys1:  c = r1 = (var + eps)^-½,  S = s1 ∘ g1,  R = r1 A1,  F = cen(B1) ∘ g1,  b = b1
    norm of layer 2  centred keys1 + A2ᵀ B2 + bo2 = r1 s2 + Rᵀ F,  R = [r1 A1; A2; 1],  F = [cen(F1); cen(B2); f0]   (r = 113)
                     C var = r1² ‖s2‖² + Σ_j R_j (2 r1 s2·F_j + [F Fᵀ R]_j)
                     s2·F_j = v1_j · (cen(s2 ∘ g1) Wo1ᵀ),  v2_j · (s2 Wo2ᵀ)  and  s2·f0
                     keys2:  c = r1 r2,  S = s2 ∘ g2,  R := r2 R,  F := F ∘ g2,  b = b2
    scores           (keys + e) Wk = c ∘ (S Wk) + (b + e) Wk + Rᵀ (F Wk)
    values           softmax · keys Wv = (p ∘ c) (S Wv) + (p Rᵀ) (F Wv) + b Wv
    upscaling        keys2 Wc + bc = c ∘ (S Wc) + Rᵀ (F Wc) + b Wc + bc

Norms, cross terms, quadratic forms and variances are float32 (or wider) whatever the precision; a variance is clamped at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pseudoris_cli.networks.sam.decoder import GridDecoder, merge_heads, split_heads


@dataclass(frozen=True, slots=True)
class FactoredKeys:
    """The parts of keys = c ∘ S + Rᵀ F + b that differ between prompts: c [P, 1, N], R [P, r, N], F [P, r, C]."""

    scale: Tensor
    rows: Tensor
    factors: Tensor


@dataclass(frozen=True, slots=True)
class KeyProjection:
    """An image-side projection of keys for scores, by head and transposed: S W and (b + e) W (+ bias), [H, d, N] each."""

    weight: Tensor
    scaled: Tensor
    fixed: Tensor


@dataclass(frozen=True, slots=True)
class ValueProjection:
    """An image-side projection of keys for values: S W by head [H, N, d], and b W + bias [H·d]."""

    weight: Tensor
    scaled: Tensor
    fixed: Tensor


class LowRankDecoder(GridDecoder):
    """Holds attention matrices [P, 56, N] of a chunk instead of image tokens [P, N, 256]."""

    def prepare(self, x: Tensor, e: Tensor) -> None:
        """The shared parts of layer 2, the final attention, the upscaling, and both variances."""
        token_to_image, image_to_token = self.second.cross_attn_token_to_image, self.second.cross_attn_image_to_token
        out1, out2 = self.first.cross_attn_image_to_token.out_proj, image_to_token.out_proj
        (g1, b1), (g2, b2) = ((norm.weight, norm.bias) for norm in (self.first.norm4, self.second.norm4))
        exact = torch.promote_types(x.dtype, torch.float32)
        wo1, wo2 = out1.weight.to(exact), out2.weight.to(exact)

        s1 = centred(x.to(exact) + out1.bias)
        s2 = centred(s1 * g1)
        self.f0 = centred(b1 + out2.bias)
        self.norm1, self.norm2 = s1.square().sum(-1), s2.square().sum(-1)
        self.cross1 = self.by_channel(2 * s1 @ wo1)
        self.cross21 = self.by_channel(2 * centred(s2 * g1) @ wo1)
        self.cross22 = self.by_channel(2 * s2 @ wo2)
        self.cross20 = 2 * s2 @ self.f0.to(exact)

        S1, S2 = (s1 * g1).to(x.dtype), (s2 * g2).to(x.dtype)
        self.token_to_image_keys = self._key_projection(S1, e + b1, token_to_image.k_proj, False)
        self.token_to_image_values = self._value_projection(S1, b1, token_to_image.v_proj)
        self.image_to_token_queries = self._key_projection(S1, e + b1, image_to_token.q_proj, True)
        self.final_keys = self._key_projection(S2, e + b2, self.final.k_proj, False)
        self.final_values = self._value_projection(S2, b2, self.final.v_proj)
        tokens = self.visible[0] * self.visible[1]
        self.first_scaled = S2[:tokens] @ self.upscaler.first_weight
        self.first_fixed = b2 @ self.upscaler.first_weight + self.upscaler.first_bias

    def attend(self, tokens: Tensor) -> Tensor:
        """See GridDecoder; stores the factors for the upscaling in `self.keys`."""
        layer = self.first_layer(tokens)
        update1 = centred(layer.update)
        r1 = self._first_rstd(layer.attention, layer.values, update1)
        rows = self.buffers("rows", (len(tokens), 2 * update1.shape[1] + 1, self.N), update1)
        rows1 = torch.mul(layer.attention, r1, out=rows[:, : update1.shape[1]])
        keys1 = FactoredKeys(r1, rows1, update1 * self.first.norm4.weight)

        queries = self.self_attention(self.second, layer.queries, tokens)
        token_to_image = self.second.cross_attn_token_to_image
        scores = self._scores(self.image_queries(token_to_image, queries + tokens), self.token_to_image_keys, keys1)
        queries = self.update_tokens(self.second, queries, self._values(scores, self.token_to_image_values, keys1))

        heads, values, update = self.image_update(self.second, queries, tokens)
        scores = self._scores(heads, self.image_to_token_queries, keys1)
        rows[:, update.shape[1] : -1] = self.softmax(scores, 2, "weights").flatten(1, 2)
        rows[:, -1] = 1
        constant = self.f0.expand(len(tokens), 1, -1)
        factors = torch.cat([centred(keys1.factors), centred(update), constant], 1)
        r2 = self._second_rstd(FactoredKeys(r1, rows, factors), layer.values, values)
        self.keys = FactoredKeys(r1 * r2, rows.mul_(r2), factors * self.second.norm4.weight)

        heads = self.image_queries(self.final, self.tokens_read(queries + tokens))
        scores = self._scores(heads, self.final_keys, self.keys)
        return self.tokens_read(queries) + self.final.out_proj(self._values(scores, self.final_values, self.keys))

    def upscale(self, prompts: Tensor | None, hyper: Tensor) -> Tensor:
        """See GridDecoder."""
        keys, tokens = self.keys, slice(0, len(self.first_scaled))
        scale, rows, factors = keys.scale[:, 0, tokens, None], keys.rows[:, :, tokens], keys.factors
        if prompts is not None:
            scale, rows, factors = scale[prompts], rows[prompts], factors[prompts]
        factors = factors @ self.upscaler.first_weight

        def first(chosen: slice, block: slice) -> Tensor:
            shape = (chosen.stop - chosen.start, block.stop - block.start, factors.shape[-1])
            out = self.buffers("first convolution", shape, factors)
            torch.addcmul(self.first_fixed, self.first_scaled[block], scale[chosen, block], out=out)
            return out.baddbmm_(rows[chosen, :, block].transpose(1, 2), factors[chosen])

        return self.upscaler(first, hyper, self.visible)

    def _first_rstd(self, attention: Tensor, values: Tensor, update: Tensor) -> Tensor:
        """r1 [P, 1, N]: one over the standard deviation of x + bo1 + A1ᵀ B1, from cen(B1) = `update`."""
        A, B = attention.to(self.norm1.dtype), update.to(self.norm1.dtype)
        sums = self.each_prompt(values.to(A.dtype), self.cross1, "statistics").flatten(1, 2)
        sums.baddbmm_(B @ B.transpose(1, 2), A)
        return self._rstd(sums.mul_(A).sum(1, keepdim=True).add_(self.norm1), self.first.norm4).to(attention.dtype)

    def _second_rstd(self, keys: FactoredKeys, values1: Tensor, values2: Tensor) -> Tensor:
        """r2 [P, 1, N]: one over the standard deviation of r1 s2 + Rᵀ F."""
        exact = self.norm2.dtype
        r1, R, F = keys.scale.to(exact), keys.rows.to(exact), keys.factors.to(exact)
        sums = self.buffers("statistics", R.shape, R)
        middle = R.shape[1] // 2
        for part, values, cross in (
            (sums[:, :middle], values1, self.cross21),
            (sums[:, middle:-1], values2, self.cross22),
        ):
            for target, prompt in zip(part.unflatten(1, (self.heads, -1)), values.to(exact), strict=True):
                torch.bmm(prompt, cross, out=target)
        sums[:, -1] = self.cross20
        sums.mul_(r1).baddbmm_(F @ F.transpose(1, 2), R)
        total = sums.mul_(R).sum(1, keepdim=True).addcmul_(r1.square(), self.norm2)
        return self._rstd(total, self.second.norm4).to(keys.rows.dtype)

    @staticmethod
    def _rstd(total: Tensor, norm: nn.LayerNorm) -> Tensor:
        """The sum of squares over C, in place, to (variance + eps)^-½; rounding may make it slightly negative."""
        return total.div_(norm.weight.shape[0]).clamp_min_(0).add_(norm.eps).rsqrt_()

    def _key_projection(self, S: Tensor, positions: Tensor, projection: nn.Linear, biased: bool) -> KeyProjection:
        fixed = positions @ projection.weight.t() + (projection.bias if biased else 0)
        return KeyProjection(projection.weight, self.by_channel(S @ projection.weight.t()), self.by_channel(fixed))

    def _value_projection(self, S: Tensor, b: Tensor, projection: nn.Linear) -> ValueProjection:
        scaled = split_heads(S @ projection.weight.t(), self.heads).contiguous()
        return ValueProjection(projection.weight, scaled, b @ projection.weight.t() + projection.bias)

    def _scores(self, heads: Tensor, projected: KeyProjection, keys: FactoredKeys) -> Tensor:
        """Scores [P, H, T, N] of token heads [P, H, T, d] against the image tokens."""
        scores = self.each_prompt(heads, projected.scaled, "scores").flatten(1, 2)
        fixed = self.each_prompt(heads, projected.fixed, "fixed").flatten(1, 2)
        torch.addcmul(fixed, scores, keys.scale, out=scores)
        factors = split_heads(keys.factors @ projected.weight.t(), self.heads)
        scores.baddbmm_((heads @ factors.transpose(-2, -1)).flatten(1, 2), keys.rows)
        return scores.unflatten(1, heads.shape[1:3])

    def _values(self, scores: Tensor, projected: ValueProjection, keys: FactoredKeys) -> Tensor:
        """The result of token-to-image attention, [P, T, H·d]."""
        weights = self.softmax(scores, -1, "weights")
        mixed = torch.bmm(weights.flatten(1, 2), keys.rows.transpose(1, 2)).unflatten(1, scores.shape[1:3])
        own = mixed @ split_heads(keys.factors @ projected.weight.t(), self.heads)
        shared = self.each_prompt(weights.mul_(keys.scale[:, None]), projected.scaled, "values")
        return merge_heads(own + shared) + projected.fixed


def centred(x: Tensor) -> Tensor:
    """x minus its mean over channels."""
    return x - x.mean(-1, keepdim=True)
