"""Train the demo's CoCa on crops of rendered objects:  python training/train_coca.py --pool POOL --out coca.safetensors

One step: 32 crops (all four kinds), 2 captions each. The loss is CoCa's, captioning and contrastive, and the
cross-entropy of four attribute heads that exist in training only. Label smoothing gives all words that are wrong for
a crop the same low score; distinctive sampling uses differences of scores, in which noise would look like content.
"""

from __future__ import annotations

import copy

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from crop_batches import Crops, crop_batches, normalise
from loop import Figures, Run, train
from losses import attribute_loss, contrastive_loss
from phrases import draw_phrase, tokenize, truth
from pool import NAMES, Pool

from pseudoris_cli.networks.coca.configs import DEMO
from pseudoris_cli.records import CROP_KINDS

CROPS, CAPTIONS = 32, 2
SMOOTHING = 0.1


def build_coca() -> torch.nn.Module:
    """open_clip's CoCa at the demo's size; open_clip leaves `text_decoder.text_projection` uninitialised."""
    config = copy.deepcopy(DEMO)
    config.pop("custom_text")
    model = open_clip.CoCa(**config)
    torch.nn.init.normal_(model.text_decoder.text_projection, std=config["embed_dim"] ** -0.5)
    return model


def step_loss(
    model: torch.nn.Module, heads: torch.nn.ModuleList, batch: Crops, rng: np.random.Generator, help_weight: float
) -> tuple[torch.Tensor, dict[str, float]]:
    texts, claims = zip(*(draw_phrase(code, rng) for code in batch.codes for _ in range(CAPTIONS)), strict=True)
    tokens = tokenize(list(texts))
    tokens = tokens[:, : int((tokens > 0).sum(1).max())]
    latent, embeddings = model._encode_image(normalise(batch.pixels[0], rng))
    out = model(
        None,
        tokens,
        image_latent=latent.repeat_interleave(CAPTIONS, 0),
        image_embs=embeddings.repeat_interleave(CAPTIONS, 0),
    )
    captioning = F.cross_entropy(
        out["logits"].transpose(1, 2), tokens[:, 1:], ignore_index=0, label_smoothing=SMOOTHING
    )
    first = np.arange(0, len(texts), CAPTIONS)
    true = torch.from_numpy(truth(np.array(claims)[first], batch.codes))
    scale = model.logit_scale.exp().clamp(max=50)
    contrastive = contrastive_loss(scale * out["text_features"][first] @ latent.T, true)
    attributes, accuracy = attribute_loss(heads, embeddings.mean(1), batch.codes)
    figures = {"captioning": captioning.item(), "contrastive": contrastive.item()}
    figures |= dict(zip(("shape", "colour", "texture", "size"), accuracy, strict=True))
    return 2 * captioning + 0.3 * contrastive + help_weight * attributes, figures


def main() -> None:
    run = Run.parse("training/train_coca.py", __doc__, steps=1200, rate=1.2e-3, seed=1)
    rng, pool, model = run.prepare(), Pool.open(run.pool), build_coca()
    run.restore(model)
    heads = torch.nn.ModuleList([torch.nn.Linear(128, len(names)) for names in NAMES])
    batches = crop_batches(pool, CROPS, [(kind,) for kind in CROP_KINDS], rng)

    def loss(progress: float) -> tuple[torch.Tensor, Figures]:
        return step_loss(model, heads, next(batches), rng, 1 - 0.8 * progress)

    train(run, model, list(heads.parameters()), len(pool.images), loss)


if __name__ == "__main__":
    main()
