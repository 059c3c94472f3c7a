"""The filter as the release computes it: for every mask, all crops and all its texts go through CLIP again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pseudoris_cli.backends.clip import ClipScorer
from pseudoris_cli.method.crops import CropSpec, make_crops
from pseudoris_cli.records import MaskedImage


def released_scores(
    image: MaskedImage, captions: dict[int, list[str]], prompts: dict[int, list[str]], scorer: ClipScorer
) -> dict[int, list[tuple[float, float, float]]]:
    """(correctness, uniqueness, DoC) of each caption of each mask in `captions`, from logits, which are 100 x cosine.

    With one mask, as in the release, DoC is the correctness logit, and uniqueness the caption's logit.
    """
    spec = CropSpec(scorer.size, scorer.mean, scorer.std, "released")
    ids = [mask.mask_id for mask in image.masks]
    crops = make_crops([image], ("masked", "crop_1.2"), spec, scorer.device)
    scores = {}
    for mask_id, texts in captions.items():
        noun_logits = _logits(scorer, crops["masked"], prompts[mask_id])
        text_logits = _logits(scorer, crops["crop_1.2"], texts)
        own = ids.index(mask_id)
        others = [k for k in range(len(ids)) if k != own]
        rows = []
        for t in range(len(texts)):
            product = [float(noun_logits[k, t]) * float(text_logits[k, t]) for k in range(len(ids))]
            correctness, uniqueness = float(noun_logits[own, t]), float(text_logits[own, t])
            doc = correctness
            if others:
                uniqueness /= max(float(text_logits[k, t]) for k in others)
                doc = product[own] / max(product[k] for k in others)
            rows.append((correctness / 100, uniqueness, doc))
        scores[mask_id] = rows
    return scores


def _logits(scorer: ClipScorer, crops: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
    """100 x cosine, [crops, texts], through open_clip's own towers with every text padded to the full context length."""
    model = scorer._model
    with torch.inference_mode():
        image_features = model.encode_image(crops, normalize=True)
        text_features = model.encode_text(scorer._tokenizer(list(texts)).to(scorer.device), normalize=True)
    return 100 * image_features @ text_features.T
