"""Train the demo's CoCa on crops of rendered objects:  python training/train_coca.py --pool POOL --out coca.safetensors

One step: 32 crops (all four kinds), 2 captions each. The loss is CoCa's, captioning and contrastive, and the
cross-entropy of four attribute heads that exist in training only. Label smoothing gives every word that is wrong for
a crop the same low score: distinctive sampling looks at differences of scores, and noise among them reads as content.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from checkpoint import learning_rate, save
from crop_batches import Crops, crop_batches, normalise
from losses import attribute_loss, contrastive_loss
from phrases import draw_phrase, tokenize, truth
from pool import NAMES, Pool

from pseudoris_cli.networks.coca_configs import DEMO
from pseudoris_cli.records import CROP_KINDS

CROPS, CAPTIONS = 32, 2
SEED, PEAK_RATE, SMOOTHING = 1, 1.2e-3, 0.1


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    rng, pool, model = np.random.default_rng(SEED), Pool.open(arguments.pool), build_coca()
    heads = torch.nn.ModuleList([torch.nn.Linear(128, len(names)) for names in NAMES])
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1] + list(heads.parameters())
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    batches = crop_batches(pool, CROPS, [(kind,) for kind in CROP_KINDS], rng)
    log: list[dict[str, float]] = []
    start = time.process_time()
    for step in range(arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments.steps, PEAK_RATE)
        help_weight = 1 - 0.8 * step / arguments.steps
        loss, figures = step_loss(model, heads, next(batches), rng, help_weight)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append(figures)
        if (step + 1) % 50 == 0 or step + 1 == arguments.steps:
            mean = {name: round(float(np.mean([row[name] for row in log[-50:]])), 3) for name in figures}
            cpu = time.process_time() - start
            print(step + 1, f"{cpu:.0f} CPU-s", mean, flush=True)
        if (step + 1) % 200 == 0 or step + 1 == arguments.steps:
            save(
                model,
                arguments.out,
                {
                    "script": "training/train_coca.py",
                    "seed": SEED,
                    "steps": step + 1,
                    "of_steps": arguments.steps,
                    "data": {"split": "train", "scenes": len(pool.images)},
                    "cpu_minutes": round(cpu / 60, 1),
                    "figures": mean,
                },
            )


if __name__ == "__main__":
    main()
