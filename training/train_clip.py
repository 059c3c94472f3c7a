"""Train the demo's CLIP:  python training/train_clip.py --pool POOL --start coca.safetensors --out clip.safetensors

It starts from the captioner's towers. One step: 32 objects, each with its 1.2 crop, a true caption and a caption with
one attribute falsified, and its masked crop with a noun prompt (the two pairs that DoC scores). The loss is CLIP's, in
which other true pairs are not negatives, and a sigmoid cross-entropy of every pair's truth, which makes cosines of
different objects comparable, as DoC divides them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from crop_batches import Crops, crop_batches, normalise
from loop import Figures, Run, train
from losses import attribute_loss, contrastive_loss
from phrases import draw_phrase, tokenize, truth, word
from pool import NAMES, Pool
from safetensors.torch import load_file

from pseudoris_cli.networks.clip.configs import DEMO

OBJECTS = 32
SAME_SCENE_WEIGHT = 3.0
"""The weight of false pairs within a scene, the only pairs that DoC compares."""


def build_clip(coca: Path | None) -> open_clip.CLIP:
    """open_clip's CLIP at the demo's size, towers from the captioner, or all of an earlier CLIP."""
    model = open_clip.CLIP(**DEMO)
    donor = load_file(coca) if coca else {}
    captioner = "text.token_embedding.weight" in donor
    other = ("logit_scale", "visual.proj") if captioner else ()
    own = model.state_dict()
    for name, value in own.items():
        for theirs in (name, f"text.{name}"):
            given = donor.get(theirs)
            if given is not None and given.shape == value.shape and name not in other:
                own[name] = given.float()
    model.load_state_dict(own)
    return model


def falsify(code: np.ndarray, rng: np.random.Generator) -> tuple[str, list[int]]:
    """A caption of an object that differs from the given one in one attribute, which it names."""
    changed = code.copy()
    k = int(rng.integers(4))
    changed[k] = (changed[k] + rng.integers(1, len(NAMES[k]))) % len(NAMES[k])
    named = rng.random(3) < 0.45
    if k:
        named[k - 1] = True
    claim = [int(changed[0]), *(int(c) if say else -1 for c, say in zip(changed[1:], named, strict=True))]
    return word(changed, named, rng), claim


def prompt(code: np.ndarray, rng: np.random.Generator) -> tuple[str, list[int]]:
    """The text for a masked crop: the noun prompt, sometimes a caption."""
    if rng.random() < 0.2:
        return draw_phrase(code, rng)
    return f"a photo of a {NAMES[0][code[0]]}", [int(code[0]), -1, -1, -1]


def truth_loss(cosines: torch.Tensor, true: torch.Tensor, same_scene: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy of each pair's truth, both classes with equal weight."""
    weight = torch.where(same_scene & ~true, SAME_SCENE_WEIGHT, 1.0)
    weight = torch.where(true, 0.5 / (weight * true).sum(), 0.5 / (weight * ~true).sum()) * weight
    return (F.binary_cross_entropy_with_logits(10 * cosines + bias, true.float(), reduction="none") * weight).sum()


def step_loss(
    model: open_clip.CLIP, heads: torch.nn.ModuleList, bias: torch.Tensor, batch: Crops, rng: np.random.Generator
) -> tuple[torch.Tensor, dict[str, float]]:
    captions = [draw_phrase(code, rng) for code in batch.codes] + [falsify(code, rng) for code in batch.codes]
    prompts = [prompt(code, rng) for code in batch.codes]
    tokens = tokenize([text for text, _ in captions + prompts])
    texts = F.normalize(model.encode_text(tokens), dim=-1)
    images = model.encode_image(normalise(np.concatenate([batch.pixels[0], batch.pixels[1]]), rng))
    context, masked = F.normalize(images, dim=-1).split(OBJECTS)
    scale = model.logit_scale.exp().clamp(max=50)
    same = torch.from_numpy(batch.scene[:, None] == batch.scene[None])
    loss, figures = torch.zeros(()), {}
    for name, pairs, text, crops in (
        ("caption", captions, texts[: 2 * OBJECTS], context),
        ("noun", prompts, texts[2 * OBJECTS :], masked),
    ):
        true = torch.from_numpy(truth(np.array([claim for _, claim in pairs]), batch.codes))
        cosines = text @ crops.T
        loss = loss + contrastive_loss(scale * cosines[:OBJECTS], true[:OBJECTS])
        loss = loss + truth_loss(cosines, true, same.repeat(len(true) // OBJECTS, 1), bias)
        rivals = same & ~true[:OBJECTS]
        beaten = cosines[:OBJECTS] < cosines[:OBJECTS].diagonal()[:, None]
        figures[f"{name}_ranked"] = ((beaten & rivals).sum() / rivals.sum().clamp(min=1)).item()
        figures[f"{name}_true"], figures[f"{name}_false"] = cosines[true].mean().item(), cosines[~true].mean().item()
    attributes, _ = attribute_loss(heads, images, np.concatenate([batch.codes] * 2))
    return loss + 0.2 * attributes, {"loss": loss.item(), **figures}


def main() -> None:
    run = Run.parse("training/train_clip.py", __doc__, steps=1000, rate=8e-4, seed=2)
    rng, pool = run.prepare(), Pool.open(run.pool)
    model = build_clip(run.start)
    heads = torch.nn.ModuleList([torch.nn.Linear(128, len(names)) for names in NAMES])
    bias = torch.nn.Parameter(torch.tensor(-4.0))
    batches = crop_batches(pool, OBJECTS, [("crop_1.2", "masked")], rng)

    def loss(progress: float) -> tuple[torch.Tensor, Figures]:
        return step_loss(model, heads, bias, next(batches), rng)

    train(run, model, [bias, *heads.parameters()], len(pool.images), loss)


if __name__ == "__main__":
    main()
