"""SAM-HQ's mask decoder (Ke et al., 2023) over transformers' modules, with the image tokens that the paper upscales.

transformers 5.24's own `SamHQMaskDecoder` leaves out the image tokens that its transformer returns: it upscales the tokens that
went in, with rows and columns exchanged. A mask then hardly depends on its prompt. Here the returned tokens are upscaled, as in
SAM-HQ's code and as in transformers' decoder of SAM, which equals this one where the high-quality branch adds nothing.
Masks that the predicted IoU rejects are not upscaled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pseudoris_cli.networks.sam.decoder import chosen
from pseudoris_cli.networks.sam.promptable import Decoded, Size
from pseudoris_cli.networks.sam.transformers_decoder import Embedding, KeepsNothing


class HqDecoder(KeepsNothing):
    """A PromptDecoder; embeddings are (embedding, features of the encoder's first block with global attention, ...)."""

    plain = False

    def __init__(self, model: Any, chunk: int) -> None:
        self.model, self.decoder, self.chunk = model, model.mask_decoder, chunk

    def compile(self) -> None:
        """See PromptDecoder."""
        self.decoder.transformer.compile()

    def set_image(self, embedding: Embedding, visible: Size) -> None:
        """See PromptDecoder; the padding is decoded too."""
        image, first, *_ = embedding
        decoder, self.dtype = self.decoder, image.dtype
        own = decoder.encoder_conv2(decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(image))))
        early = decoder.compress_vit_conv1(first.permute(0, 3, 1, 2).contiguous())
        early = decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(early)))
        self.fine = own + early
        self.image = image + self.model.prompt_encoder.no_mask_embed.weight.to(self.dtype).reshape(1, -1, 1, 1)
        self.positions = self.model.get_image_wide_positional_embeddings().to(self.dtype)

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """See PromptDecoder; the three masks of a prompt go by predicted IoU, highest first."""
        decoder, count = self.decoder, len(sparse)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, decoder.hq_token.weight])
        tokens = torch.cat([own.expand(count, -1, -1), sparse.to(own.dtype)], 1)
        queries, keys = decoder.transformer(
            point_embeddings=tokens[None],
            image_embeddings=self.image.expand(count, -1, -1, -1),
            image_positional_embeddings=self.positions.expand(count, -1, -1, -1),
            attention_similarity=None,
        )
        queries = queries[0]
        iou, order = decoder.iou_prediction_head(queries[:, 0])[:, 1:].float().sort(1, descending=True)
        prompt, mask, used, place = chosen(iou, min_iou)
        logits = self._upscale(keys.flatten(0, 1)[used], queries[used], order[used])
        return Decoded(prompt, mask, iou[prompt, mask], logits[place, mask])

    def _upscale(self, keys: Tensor, queries: Tensor, order: Tensor) -> Tensor:
        """Logits [n, 3, 4h, 4w] float32 from image tokens [n, N, C] and token states [n, T, C]."""
        decoder, count = self.decoder, len(keys)
        image = keys.transpose(1, 2).reshape(count, -1, *self.image.shape[-2:])
        wide = decoder.activation(decoder.upscale_layer_norm(decoder.upscale_conv1(image)))
        wide = decoder.activation(decoder.upscale_conv2(wide))
        fine = decoder.mask_conv2(decoder.activation(decoder.mask_norm(decoder.mask_conv1(wide)))) + self.fine
        heads = decoder.output_hypernetworks_mlps[1:]
        hyper = torch.stack([head(queries[:, 2 + i]) for i, head in enumerate(heads)], 1)
        masks = torch.einsum("pkc,pchw->pkhw", hyper, wide)
        masks = masks.gather(1, order[:, :, None, None].expand_as(masks))
        best = torch.einsum("pc,pchw->phw", decoder.hq_mask_mlp(queries[:, 2 + len(heads)]), fine)
        return (masks + best[:, None]).float()
