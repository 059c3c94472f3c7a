"""SAM 3's detector of concepts (Carion et al., 2025) over transformers' `Sam3Model`: a noun phrase to every instance of it.

An image is encoded once for all phrases, and a phrase once for all images. The score of an instance is the sigmoid of its logit
times that of the phrase's presence in the image, as in transformers' own post-processing, which makes the masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pseudoris_cli.halving import Halving


@dataclass(frozen=True, slots=True)
class Instance:
    """A mask bool [H, W] of the phrase with this index, and its score."""

    phrase: int
    score: float
    mask: np.ndarray


class ConceptDetector:
    """The model with its processor. `tokenize(texts)` gives input_ids and attention_mask, int64 [N, T]."""

    def __init__(self, model: Any, image_processor: Any, tokenize: Any, phrases: Sequence[str], chunk: int) -> None:
        self.model, self.image_processor, self.chunk = model, image_processor, chunk
        self.halving = Halving()
        self.dtype = next(model.vision_encoder.parameters()).dtype
        with torch.inference_mode():
            ids, self.attention = (part.to(model.device) for part in tokenize(list(phrases)))
            states = model.get_text_features(input_ids=ids, attention_mask=self.attention, return_dict=True)
            self.texts: Tensor = states.pooler_output

    @torch.inference_mode()
    def detect(self, image: np.ndarray, score_thresh: float, mask_thresh: float) -> list[Instance]:
        """The instances of every phrase in a uint8 image [H, W, 3]: phrase by phrase, in the order of the model's queries."""
        done = self.image_processor(
            images=np.require(image, requirements=["C", "W"]), input_data_format="channels_last", return_tensors="pt"
        )
        seen = self.model.get_vision_features(pixel_values=done["pixel_values"].to(self.model.device, self.dtype))

        def ask(part: slice) -> list[Instance]:
            return self._instances(seen, image.shape[:2], part, (score_thresh, mask_thresh))

        chunks = self.halving.chunks(len(self.texts), self.chunk, ask)
        return [instance for found in chunks for instance in found]

    def _instances(
        self, seen: Any, size: tuple[int, ...], part: slice, thresholds: tuple[float, float]
    ) -> list[Instance]:
        """The instances of some phrases in an image of this height and width whose features are `seen`."""
        texts = self.texts[part]
        outputs = self.model(
            vision_embeds=_repeated(seen, len(texts)),
            text_embeds=SimpleNamespace(pooler_output=texts),
            attention_mask=self.attention[part],
        )
        for name in ("pred_logits", "pred_boxes", "pred_masks", "presence_logits"):
            value = getattr(outputs, name)
            if value is not None:
                setattr(outputs, name, value.float())
        results = self.image_processor.post_process_instance_segmentation(outputs, *thresholds, [size] * len(texts))
        found = []
        for phrase, result in enumerate(results, part.start):
            masks = result["masks"].bool().cpu().numpy()
            found += [
                Instance(phrase, score, mask) for score, mask in zip(result["scores"].tolist(), masks, strict=True)
            ]
        return found


def _repeated(seen: Any, times: int) -> Any:
    """The features of one image for several phrases, without a copy."""
    values = {}
    for name in (one.name for one in fields(seen)):
        value = getattr(seen, name)
        if isinstance(value, tuple | list) and name.startswith("fpn"):
            value = tuple(level.expand(times, *level.shape[1:]) for level in value)
        values[name] = value
    return type(seen)(**values)


def build_tiny(generator: torch.Generator) -> tuple[Any, Any, Any]:
    """A small network with random weights, its image processor and a tokenizer that needs no file."""
    import transformers

    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_layers": 1}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 112,
                "window_size": 4,
                "global_attn_indexes": [1],
                "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": 32,
            "intermediate_size": 48,
            "projection_dim": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
        },
        geometry_encoder_config=small,
        detr_encoder_config=small,
        detr_decoder_config=small | {"num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = transformers.Sam3Model(config).eval().requires_grad_(False)
    return model, transformers.Sam3ImageProcessor(size={"height": 112, "width": 112}), _tokenize


def _tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
    """open_clip's tokens, which are CLIP's, with the mask that transformers' tokenizer gives."""
    from open_clip import SimpleTokenizer

    tokens = SimpleTokenizer(context_length=32)(texts)
    inside = torch.arange(tokens.shape[1]) <= tokens.argmax(1, keepdim=True)
    return tokens.where(inside, tokens.max()), inside.long()
