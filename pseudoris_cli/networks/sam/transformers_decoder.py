"""The mask decoders of transformers' Segment Anything family in the two forms that the generator needs.

`ModuleDecoder` calls transformers' own module. `rewritten` puts the same weights into segment_anything's modules, where the exact
rewritings of `decoder` apply: SAM 2, SAM 3's tracker and EdgeTAM have SAM's decoder with one more token and with features of the
image that are added to the upscaling. SAM-HQ has layers of its own behind it (`transformers_hq`).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, TwoWayTransformer
from torch import Tensor, nn

from pseudoris_cli.networks.sam.decoder import DecoderModules, GridDecoder, chosen
from pseudoris_cli.networks.sam.promptable import Decoded, Size

Embedding = tuple[Tensor, ...]
"""Of one image: the embedding [1, C, h, w] first, then what else its decoder takes."""

_NAMES = (
    ("layer_norm_final_attn", "norm_final_attn"),
    ("layer_norm", "norm"),
    ("o_proj", "out_proj"),
    ("mlp.proj_in", "mlp.lin1"),
    ("mlp.proj_out", "mlp.lin2"),
    ("upscale_conv1", "output_upscaling.0"),
    ("upscale_norm", "output_upscaling.1"),
    ("upscale_conv2", "output_upscaling.3"),
)
"""What transformers names otherwise than segment_anything, applied in order."""


class KeepsNothing:
    """A decoder that keeps nothing from one chunk to the next."""

    def release(self) -> None:
        """See PromptDecoder."""


class ModuleDecoder(KeepsNothing):
    """transformers' own mask decoder: every mask of every prompt is computed."""

    plain = True

    def __init__(self, model: Any, chunk: int) -> None:
        self.model, self.chunk = model, chunk
        self.is_hq = hasattr(model.mask_decoder, "hq_token")

    def set_image(self, embedding: Embedding, visible: Size) -> None:
        """Set the image; `visible` is not used, since padding is decoded too."""
        self.embedding, *self.more = embedding
        self.positions = self.model.get_image_wide_positional_embeddings().to(self.embedding.dtype)

    def compile(self) -> None:
        """Compile the module."""
        self.model.mask_decoder.compile()

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """Masks of prompts from their embeddings [P, t, C], as PromptDecoder; SAM-HQ's three masks go by predicted IoU."""
        prompts, dtype = self.model.prompt_encoder, self.embedding.dtype
        dense = prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(self.embedding)
        if self.is_hq:
            extra: dict[str, Any] = {"hq_token_only": False, "intermediate_embeddings": list(self.more)}
        else:
            extra = {"high_resolution_features": list(self.more)}
        logits, iou, *_ = self.model.mask_decoder(
            image_embeddings=self.embedding,
            image_positional_embeddings=self.positions,
            sparse_prompt_embeddings=sparse[None].to(dtype),
            dense_prompt_embeddings=dense.to(dtype),
            multimask_output=True,
            **extra,
        )
        logits, iou = logits[0], iou[0].float()
        prompt, mask, _, _ = chosen(iou, min_iou)
        return Decoded(prompt, mask, iou[prompt, mask], logits[prompt, mask].float())


class RewrittenDecoder:
    """One of the rewritten decoders on transformers' weights; embeddings are (embedding, finest, finer features)."""

    plain = False

    def __init__(self, model: Any, form: type[GridDecoder], chunk: int) -> None:
        self.grid = form(as_segment_anything(model), chunk, model.mask_decoder.obj_score_token.weight)
        self.chunk = chunk

    def set_image(self, embedding: Embedding, visible: Size) -> None:
        """See PromptDecoder."""
        image, finest, finer = embedding
        self.grid.set_image(image, visible, (finer, finest))

    def compile(self) -> None:
        """See PromptDecoder."""
        self.grid.compile()

    def decode(self, sparse: Tensor, min_iou: float | None) -> Decoded:
        """See PromptDecoder."""
        return self.grid.decode(sparse, min_iou)

    def release(self) -> None:
        """See PromptDecoder."""
        self.grid.release()


def is_rewritable(model: Any) -> bool:
    """Whether the rewritings, which are derived for SAM's own numbers of layers and masks, hold for this network."""
    decoder = model.mask_decoder
    layers = decoder.transformer.layers
    return (
        hasattr(decoder, "obj_score_token")
        and len(layers) == 2
        and len(decoder.output_hypernetworks_mlps) == 4
        and all(len(layer.mlp.layers) == 0 for layer in layers)
    )


def as_segment_anything(model: Any) -> DecoderModules:
    """The mask decoder in segment_anything's modules, which share its parameters, and the parts of the prompt encoder."""
    theirs = model.mask_decoder
    attention = theirs.transformer.layers[0].cross_attn_token_to_image
    width, inner = attention.q_proj.in_features, attention.q_proj.out_features
    head = theirs.iou_prediction_head
    with torch.device("meta"):
        transformer = TwoWayTransformer(
            depth=len(theirs.transformer.layers),
            embedding_dim=width,
            num_heads=attention.num_attention_heads,
            mlp_dim=theirs.transformer.layers[0].mlp.proj_in.out_features,
            attention_downsample_rate=width // inner,
        )
        ours = MaskDecoder(
            transformer_dim=width,
            transformer=transformer,
            iou_head_depth=head.num_layers,
            iou_head_hidden_dim=head.proj_in.out_features,
        )
    ours.iou_prediction_head.sigmoid_output = bool(getattr(head, "sigmoid_output", False))
    state = {_renamed(name): tensor for name, tensor in theirs.state_dict().items()}
    wanted = ours.state_dict().keys()
    ours.load_state_dict({name: state[name] for name in wanted}, strict=True, assign=True)
    for name, module in theirs.named_modules():
        if isinstance(module, nn.LayerNorm):
            ours.get_submodule(_renamed(name)).eps = module.eps
    prompts = SimpleNamespace(
        no_mask_embed=model.prompt_encoder.no_mask_embed, get_dense_pe=model.get_image_wide_positional_embeddings
    )
    found: Any = SimpleNamespace(mask_decoder=ours.eval().requires_grad_(False), prompt_encoder=prompts)
    return found


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
    if name.startswith(("output_hypernetworks_mlps", "iou_prediction_head")):
        return _numbered(name)
    return name


def _numbered(name: str) -> str:
    """transformers names the first and last layer of these MLPs, segment_anything numbers all three."""
    for theirs, ours in ((".proj_in.", ".layers.0."), (".layers.0.", ".layers.1."), (".proj_out.", ".layers.2.")):
        if theirs in name:
            return name.replace(theirs, ours)
    return name
