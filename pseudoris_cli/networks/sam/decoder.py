"""SAM's mask decoder over a grid of single-point prompts on one image embedding: the parts that its three forms share.

Automatic mask generation decodes about a thousand prompts on the same image tokens. `OfficialDecoder` runs
segment_anything's own modules (Kirillov et al., 2023, appendix A). `decoder_absorbed.AbsorbedDecoder` and
`decoder_lowrank.LowRankDecoder` compute the same function, exact up to rounding, from these observations.

Notation: P prompts; T = 7 tokens each (IoU, 4 masks, point, padding point); N image tokens of C channels, x the image
embedding plus the "no mask" embedding, e the positional encoding; H heads of width d, J = H·T rows j = (head, token);
W, b the weight and bias of a projection, written so that a projection is y W + b.

1. Before layer 1 the image tokens are the same for every prompt, so the keys (x + e) Wk and values x Wv of its
   token-to-image attention and the queries (x + e) Wq of its image-to-token attention are computed once per image.
2. Image-to-token attention changes the image tokens by a matrix of rank J. With A [J, N] the attention, softmaxed over
   tokens, and B_j = v_j Wo_head the values sent through the output projection,
       keys1 = LayerNorm(x + bo + Aᵀ B).
   Only A and B differ between prompts.
3. The bias of a token-to-image key projection adds the same number to every score of a query and cancels in the softmax.
4. Only 4 of 7 outputs of the final attention are used (IoU and three masks), not the first mask token and the points.
5. The decoder is invariant to the order of the image tokens, so those that the image covers are put first: only they are
   upscaled, and the padding of ResizeLongestSide is never computed at mask resolution.
6. The predicted IoU needs no upscaling, so masks that it rejects are never upscaled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from segment_anything.modeling import MaskDecoder, Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor
from torch.nn import functional as F

from pseudoris_cli.networks.sam.buffers import Buffers
from pseudoris_cli.networks.sam.promptable import Decoded
from pseudoris_cli.networks.sam.upscale import Upscaler
from pseudoris_cli.networks.transfers import upload

Features = tuple[Tensor, Tensor]
"""What SAM 2 adds to the upscaling, of one image: [1, c, 2h, 2w] after the first convolution, [1, c/2, 4h, 4w] after the second."""


class PromptDecoder(Protocol):
    """A mask decoder bound to one image at a time."""

    chunk: int

    def set_image(self, embedding: Tensor, visible: tuple[int, int]) -> None:
        """Set the embedding [1, C, h, w] of an image that covers the top left visible = (vh, vw) tokens."""
        ...

    def compile(self) -> None:
        """Compile the functions that run for every chunk."""
        ...

    def release(self) -> None:
        """Let go of what is kept from one `decode` to the next."""

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """Masks of at most `chunk` prompts from their embeddings [P, 2, C]; with `min_iou`, those with a predicted IoU above."""
        ...


class OfficialDecoder(PromptDecoder):
    """segment_anything's own `Sam.mask_decoder`: every mask of every prompt is computed at full mask resolution."""

    def __init__(self, sam: Sam, chunk: int) -> None:
        self.sam, self.chunk = sam, chunk

    def set_image(self, embedding: Tensor, visible: tuple[int, int]) -> None:
        """See PromptDecoder. The padding is decoded too: `Sam.postprocess_masks` expects it."""
        self.embedding = embedding

    def compile(self) -> None:
        """See PromptDecoder."""
        self.sam.mask_decoder.compile()

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """See PromptDecoder; the logits cover the complete padded square."""
        prompts, dtype = self.sam.prompt_encoder, self.embedding.dtype
        logits, iou = self.sam.mask_decoder(
            image_embeddings=self.embedding,
            image_pe=prompts.get_dense_pe().to(dtype),
            sparse_prompt_embeddings=sparse.to(dtype),
            dense_prompt_embeddings=prompts.no_mask_embed.weight.to(dtype).reshape(1, -1, 1, 1),
            multimask_output=True,
        )
        iou = iou.float()
        prompt, mask, _, _ = chosen(iou, min_iou)
        return Decoded(prompt, mask, iou[prompt, mask], logits[prompt, mask].float())


@dataclass(frozen=True, slots=True)
class FirstLayer:
    """The results of layer 1: token states [P, T, C], attention A [P, J, N], values v [P, H, T, d] and B = v Wo [P, J, C]."""

    queries: Tensor
    attention: Tensor
    values: Tensor
    update: Tensor


class DecoderModules(Protocol):
    """What the rewritten decoders need of a network, in segment_anything's modules."""

    mask_decoder: MaskDecoder
    prompt_encoder: Any


class GridDecoder:
    """The parts common to the rewritten decoders; a subclass adds `prepare` (once per image) and `attend` (per chunk)."""

    def __init__(self, sam: DecoderModules | Sam, chunk: int, leading: Tensor | None = None) -> None:
        """`leading` [n, C]: learned tokens before the IoU token, whose outputs are not used (SAM 2's for the object score)."""
        self.decoder, self.prompt_encoder, self.chunk = sam.mask_decoder, sam.prompt_encoder, chunk
        tokens = [self.decoder.iou_token.weight, self.decoder.mask_tokens.weight]
        self.own = torch.cat(tokens if leading is None else [leading, *tokens])
        self.leading = 0 if leading is None else len(leading)
        transformer = self.decoder.transformer
        if len(transformer.layers) != 2:
            raise ValueError(f"the rewritten decoder is derived for 2 layers, this one has {len(transformer.layers)}")
        self.first, self.second = transformer.layers
        self.final = transformer.final_attn_token_to_image
        self.heads = self.final.num_heads
        self.scale = 1 / math.sqrt(self.final.internal_dim // self.heads)
        self.buffers = Buffers()
        self.upscaler = Upscaler(self.decoder.output_upscaling, self.buffers)

    def compile(self) -> None:
        """See PromptDecoder."""
        self.attend = torch.compile(self.attend)  # type: ignore[method-assign]
        self.upscaler.compile()

    def set_image(self, embedding: Tensor, visible: tuple[int, int], features: Features | None = None) -> None:
        """See PromptDecoder; `features` are those of the image."""
        height, width = embedding.shape[-2:]
        grid = torch.arange(height * width, device=embedding.device).view(height, width)
        rows, columns = visible
        order = torch.cat([grid[:rows, :columns].flatten(), grid[:rows, columns:].flatten(), grid[rows:].flatten()])
        self.visible, self.N = visible, height * width
        self.upscaler.set_features(features, order[: visible[0] * visible[1]])
        x = (embedding + self.prompt_encoder.no_mask_embed.weight.to(embedding.dtype)[..., None, None])[0]
        e = self.prompt_encoder.get_dense_pe()[0].to(embedding.dtype)
        x, e = x.flatten(1).t()[order], e.flatten(1).t()[order]
        token_to_image, image_to_token = self.first.cross_attn_token_to_image, self.first.cross_attn_image_to_token
        self.first_keys = split_heads(token_to_image.k_proj(x + e), self.heads).contiguous()
        self.first_values = split_heads(token_to_image.v_proj(x), self.heads).contiguous()
        self.first_queries = self.by_channel(image_to_token.q_proj(x + e))
        self.prepare(x, e)

    def release(self) -> None:
        """See PromptDecoder."""
        self.buffers.release()
        self.__dict__.pop("keys", None)  # in every form the image side of the last chunk

    def prepare(self, x: Tensor, e: Tensor) -> None:
        """Compute what layer 2, the final attention and the upscaling share, from image tokens and positions [N, C]."""
        raise NotImplementedError

    def attend(self, tokens: Tensor) -> Tensor:
        """Run the transformer on tokens [P, T, C]; returns the sum of the final attention's input and output, [P, 4, C]."""
        raise NotImplementedError

    def upscale(self, prompts: Tensor | None, hyper: Tensor) -> Tensor:
        """Logits [n, 3, 4·vh, 4·vw] of the chunk's prompts (None: all) under their hypernetwork rows [n, 3, c]."""
        raise NotImplementedError

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """See PromptDecoder."""
        decoder = self.decoder
        tokens = torch.cat([self.own.expand(len(sparse), -1, -1), sparse.to(self.own.dtype)], 1)
        hidden = decoder.transformer.norm_final_attn(self.attend(tokens))
        iou = decoder.iou_prediction_head(hidden[:, 0])[:, 1:].float()
        prompt, mask, used, place = chosen(iou, min_iou)
        height, width = 4 * self.visible[0], 4 * self.visible[1]
        if not len(prompt):
            return Decoded(prompt, mask, iou[prompt, mask], iou.new_empty(0, height, width))
        rows = hidden[used, 1:]
        networks = decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([network(rows[:, i]) for i, network in enumerate(networks)], 1)
        logits = self.upscale(None if len(used) == len(sparse) else used, hyper)
        if len(prompt) == iou.numel():
            return Decoded(prompt, mask, iou.flatten(), logits.flatten(0, 1))
        return Decoded(prompt, mask, iou[prompt, mask], logits[place, mask])

    def first_layer(self, tokens: Tensor) -> FirstLayer:
        """Layer 1, whose image tokens all prompts share: the tokens of all prompts are queries of one attention call."""
        count, T, _ = tokens.shape
        queries = self.self_attention(self.first, tokens, tokens)
        token_to_image = self.first.cross_attn_token_to_image
        folded = split_heads(token_to_image.q_proj(queries + tokens).flatten(0, 1), self.heads)
        attended = F.scaled_dot_product_attention(folded[None], self.first_keys[None], self.first_values[None])
        queries = self.update_tokens(self.first, queries, merge_heads(attended)[0].view(count, T, -1))
        keys, values, update = self.image_update(self.first, queries, tokens)
        scores = self.each_prompt(keys, self.first_queries, "scores")
        attention = self.softmax(scores, 2, "attention 1").flatten(1, 2)
        return FirstLayer(queries, attention, values, update)

    def self_attention(self, layer: TwoWayAttentionBlock, queries: Tensor, tokens: Tensor) -> Tensor:
        """Self-attention among the tokens of a prompt, with its norm; layer 1 has neither positions nor a residual."""
        if layer.skip_first_layer_pe:
            return layer.norm1(layer.self_attn(queries, queries, queries))
        positioned = queries + tokens
        return layer.norm1(queries + layer.self_attn(positioned, positioned, queries))

    def update_tokens(self, layer: TwoWayAttentionBlock, queries: Tensor, attended: Tensor) -> Tensor:
        """Add the result of token-to-image attention (before its output projection), then the MLP, each with its norm."""
        queries = layer.norm2(queries + layer.cross_attn_token_to_image.out_proj(attended))
        return layer.norm3(queries + layer.mlp(queries))

    def image_update(
        self, layer: TwoWayAttentionBlock, queries: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled keys and values [P, H, T, d] of image-to-token attention, and B [P, J, C]."""
        image_to_token = layer.cross_attn_image_to_token
        keys = self.scaled(image_to_token.k_proj(queries + tokens))
        values = split_heads(image_to_token.v_proj(queries), self.heads)
        out = image_to_token.out_proj.weight.t().reshape(self.heads, -1, tokens.shape[-1])
        return keys, values, (values @ out).flatten(1, 2)

    def image_queries(self, attention: Attention, tokens: Tensor) -> Tensor:
        """Scaled queries [P, H, T, d] of token-to-image attention."""
        return self.scaled(attention.q_proj(tokens))

    def tokens_read(self, x: Tensor) -> Tensor:
        """The tokens [P, 4, C] of [P, T, C] that multimask output uses after the final attention: IoU and masks 1 to 3."""
        first = self.leading
        return torch.cat([x[:, first : first + 1], x[:, first + 2 : first + 5]], 1)  # an index list would be uploaded

    def scaled(self, x: Tensor) -> Tensor:
        return split_heads(x, self.heads).mul(self.scale)

    def by_channel(self, x: Tensor) -> Tensor:
        """[N, H·d] to [H, d, N]."""
        return split_heads(x, self.heads).transpose(1, 2).contiguous()

    def each_prompt(self, x: Tensor, shared: Tensor, name: str) -> Tensor:
        """x [P, H, T, d] times shared [H, d, M] in the buffer `name`, without a copy of `shared` for each prompt."""
        out = self.buffers(name, (*x.shape[:3], shared.shape[-1]), x)
        for prompt, target in zip(x, out, strict=True):
            torch.bmm(prompt, shared, out=target)
        return out

    def softmax(self, scores: Tensor, dim: int, name: str) -> Tensor:
        return torch.softmax(scores, dim, out=self.buffers(name, scores.shape, scores))


def chosen(iou: Tensor, min_iou: float | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Which of the predicted IoUs [P, K] are above, all without `min_iou`: prompt [M] and mask [M], row by row, the prompts [U]
    that have any, and the place [M] of each prompt among them. At most one wait for the device; counting there would be two."""
    if min_iou is None:
        every = torch.arange(iou.numel(), device=iou.device)
        prompt = every.div(iou.shape[1], rounding_mode="floor")
        return prompt, every % iou.shape[1], torch.arange(len(iou), device=iou.device), prompt
    keep = (iou > min_iou).cpu()
    prompt, mask = keep.nonzero(as_tuple=True)
    used = keep.any(1).nonzero()[:, 0]
    parts = [prompt, mask, used, torch.searchsorted(used, prompt)]
    first, second, third, fourth = upload(torch.cat(parts), iou.device).split([len(part) for part in parts])
    return first, second, third, fourth


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[..., T, H·d] to [..., H, T, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """[..., H, T, d] to [..., T, H·d]."""
    return x.transpose(-3, -2).flatten(-2)
