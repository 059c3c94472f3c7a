"""Try to teach the demo's captioner places:

    python training/train_coca_located.py --pool POOL --start pseudoris_cli/demo/weights/coca.safetensors --out placed.safetensors

Goes on from the shipped CoCa. Every crop gets a map of the picture in its corner (crop_map.py), and half of the captions say where
the object is, where that is clear ("the red ball on the left"). A trial, whose weights are not shipped; benchmarks/RESULTS.md has
the reasons, benchmarks/located_captions.py the figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from crop_batches import TRUE_MASKS, crop, degrade, normalise
from crop_map import HEIGHT, WIDTH, crop_maps
from located_phrases import place
from loop import Figures, Run, train
from phrases import draw_phrase, tokenize
from pool import Pool, attributes
from train_coca import SMOOTHING, build_coca

from pseudoris_cli.demo import expressions as ex
from pseudoris_cli.demo.grammar import Claim
from pseudoris_cli.records import CROP_KINDS

CROPS, CAPTIONS = 32, 2
PLACED = 0.5


@dataclass(frozen=True, slots=True)
class Shown:
    """Crops uint8 [N, 64, 64, 3] with their maps, the objects' codes [N, 4], and the places that are clearly theirs."""

    pixels: np.ndarray
    codes: np.ndarray
    places: list[list[str]]


def clear_places(mask: np.ndarray, code: np.ndarray) -> list[str]:
    """The places in which an object clearly is, of `expressions.PLACES`."""
    one = place(mask, attributes(code))
    found = []
    for where in (*ex.SIDES, "middle"):
        meaning = ex.referents(ex.Expression(Claim(attributes(code).shape), "place", where), [one])
        if meaning.clear and meaning.objects:
            found.append(where)
    return found


def batches(pool: Pool, rng: np.random.Generator) -> Iterator[Shown]:
    while True:
        pixels: list[np.ndarray] = []
        codes: list[np.ndarray] = []
        places: list[list[str]] = []
        while len(codes) < CROPS:
            number, kind = int(rng.integers(len(pool.images))), str(rng.choice(CROP_KINDS))
            flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
            image, owner = pool.images[number][:, flip], pool.owner[number][:, flip]
            known = pool.codes[number][pool.codes[number][:, 0] >= 0]
            masks = [owner == k + 1 for k in range(len(known))]
            masks = [mask if rng.random() < TRUE_MASKS else degrade(mask, rng) for mask in masks]
            maps = crop_maps([box_of(mask) for mask in masks])
            for mask, code, drawn in zip(masks, known, maps, strict=True):
                seen = crop(image, mask, kind).copy()
                seen[:HEIGHT, :WIDTH] = drawn[..., None]
                pixels.append(seen)
                codes.append(code)
                places.append(clear_places(mask, code))
        yield Shown(np.stack(pixels[:CROPS]), np.array(codes[:CROPS]), places[:CROPS])


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The box xywh of a mask, in fractions of the picture."""
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return xs[0] / width, ys[0] / height, (xs[-1] + 1 - xs[0]) / width, (ys[-1] + 1 - ys[0]) / height


def say(code: np.ndarray, places: list[str], rng: np.random.Generator) -> str:
    """A true caption, half of them with a place where there is one."""
    text = draw_phrase(code, rng)[0]
    if not places or rng.random() > PLACED:
        return text
    where = str(rng.choice(places))
    return f"{text} {rng.choice([word for word, of in ex.PLACES.items() if of == where])}"


def main() -> None:
    run = Run.parse("training/train_coca_located.py", __doc__, steps=900, rate=7e-4, seed=21)
    rng, pool, model = run.prepare(), Pool.open(run.pool), build_coca()
    run.restore(model)
    drawn = batches(pool, rng)

    def loss(progress: float) -> tuple[torch.Tensor, Figures]:
        batch = next(drawn)
        texts = [
            say(code, where, rng)
            for code, where in zip(batch.codes, batch.places, strict=True)
            for _ in range(CAPTIONS)
        ]
        tokens = tokenize(texts)
        tokens = tokens[:, : int((tokens > 0).sum(1).max())]
        latent, embeddings = model._encode_image(normalise(batch.pixels, rng))
        seen = {
            "image_latent": latent.repeat_interleave(CAPTIONS, 0),
            "image_embs": embeddings.repeat_interleave(CAPTIONS, 0),
        }
        logits = model(None, tokens, **seen)["logits"].transpose(1, 2)
        captioning = F.cross_entropy(logits, tokens[:, 1:], ignore_index=0, label_smoothing=SMOOTHING)
        with torch.no_grad():
            said = tokens[:, 1:] > 0
            right = (logits.argmax(1) == tokens[:, 1:])[said].float().mean().item()
        return captioning, {"captioning": captioning.item(), "tokens_right": right}

    train(run, model, [], len(pool.images), loss)


if __name__ == "__main__":
    main()
