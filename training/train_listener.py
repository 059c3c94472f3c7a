"""Train the demo's listener:  python training/train_listener.py --pool POOL --out listener.safetensors

One step: 16 scenes, mirrored at random, their objects from masks degraded as SAM's are, and ten texts for each scene (true
ones, near misses, damaged ones; attributes, places, orders, comparisons, relations). The loss is a cross-entropy of "fits",
object by object, against what the text means by the grammar. Attribute heads on the objects help in training and are discarded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from crop_batches import TRUE_MASKS, degrade
from located_phrases import draw, located
from loop import Figures, Run, train
from losses import attribute_loss
from pool import MOST_OBJECTS, NAMES, Pool, encode

from pseudoris_cli.demo import expressions, grammar
from pseudoris_cli.demo.expressions import Located
from pseudoris_cli.networks.listener.inputs import GEOMETRY, Vocabulary, crops_of, places_of
from pseudoris_cli.networks.listener.network import WIDTH, SceneListener, choice

SCENES, TEXTS = 16, 10
WORDS = Vocabulary((*grammar.WORDS, *expressions.WORDS))


@dataclass(frozen=True, slots=True)
class Seen:
    """A scene as the listener is shown it, and the truth."""

    crops: torch.Tensor
    places: torch.Tensor
    objects: list[Located]


class Scenes:
    """Scenes of the pool, each seen with the same flaws every time (a first look costs 10 ms, later ones nothing)."""

    def __init__(self, pool: Pool, seed: int) -> None:
        self.pool, self.seed = pool, seed
        self._seen: dict[tuple[int, bool], Seen] = {}

    def __call__(self, scene: int, flip: bool) -> Seen:
        key = scene, flip
        if key not in self._seen:
            rng = np.random.default_rng((self.seed, scene, flip))
            across = slice(None, None, -1 if flip else 1)
            image, owner = self.pool.images[scene][:, across], self.pool.owner[scene][:, across]
            count = int((self.pool.codes[scene][:, 0] >= 0).sum())
            masks = [owner == k + 1 for k in range(count)]
            masks = [mask if rng.random() < TRUE_MASKS else degrade(mask, rng) for mask in masks]
            self._seen[key] = Seen(crops_of(image, masks), places_of(masks), located(self.pool, scene, flip))
        return self._seen[key]


def step_loss(
    net: SceneListener, heads: torch.nn.ModuleList, seen: list[Seen], rng: np.random.Generator
) -> tuple[torch.Tensor, Figures]:
    objects = torch.zeros(len(seen), MOST_OBJECTS, WIDTH)
    places = torch.zeros(len(seen), MOST_OBJECTS, GEOMETRY)
    present = torch.zeros(len(seen), MOST_OBJECTS, dtype=torch.bool)
    wanted = torch.zeros(len(seen), TEXTS, MOST_OBJECTS)
    texts: list[str] = []
    for row, one in enumerate(seen):
        places[row, : len(one.places)], present[row, : len(one.places)] = one.places, True
        for k in range(TEXTS):
            text, meant = draw(one.objects, rng)
            texts.append(text)
            wanted[row, k, list(meant)] = 1
    light = torch.from_numpy(rng.uniform(0.94, 1.06, (int(present.sum()), 1, 1, 1))).float()
    crops = torch.cat([one.crops for one in seen]).float()
    crops[:, :3] = (crops[:, :3] * light).clamp(max=255)
    encoded = net.encode(crops, places[present])
    attributes, _ = attribute_loss(
        heads, encoded, np.array([encode(o.attributes) for one in seen for o in one.objects])
    )
    objects[present] = encoded
    fits = net(*(x.repeat_interleave(TEXTS, 0) for x in (objects, places, present)), WORDS.read(texts))
    there, want = present.repeat_interleave(TEXTS, 0), wanted.flatten(0, 1)
    loss = F.binary_cross_entropy_with_logits(fits[there], want[there])
    with torch.no_grad():
        told = choice(fits).argmax(1)
        meant_one = want.sum(1) == 1
        answer = torch.where(meant_one, want.argmax(1), MOST_OBJECTS)
        right = (told == answer).float()
    return loss + 0.2 * attributes, {
        "attributes": attributes.item(),
        "loss": loss.item(),
        "right": right.mean().item(),
        "one": right[meant_one].mean().item(),
        "none": right[~meant_one].mean().item(),
    }


def main() -> None:
    run = Run.parse("training/train_listener.py", __doc__, steps=4500, rate=1.5e-3, seed=5)
    rng, pool = run.prepare(), Pool.open(run.pool)
    net, scenes = SceneListener(len(WORDS)), Scenes(pool, run.seed)
    heads = torch.nn.ModuleList([torch.nn.Linear(WIDTH, len(names)) for names in NAMES])
    run.restore(net)
    print(f"{sum(p.numel() for p in net.parameters()) / 1e6:.2f} M parameters")

    def loss(progress: float) -> tuple[torch.Tensor, Figures]:
        drawn = [scenes(int(k), bool(rng.random() < 0.5)) for k in rng.integers(len(pool.images), size=SCENES)]
        return step_loss(net, heads, drawn, rng)

    train(run, net, list(heads.parameters()), len(pool.images), loss, {"words": WORDS.words})


if __name__ == "__main__":
    main()
