"""Train the eyes of all students once:  python training/train_student_eyes.py --pool POOL --out eyes.safetensors

Students of real pictures begin with a backbone that was trained on labelled pictures, without expressions. So do ours: for every
cell of the map, which shape, colour, texture and size the object there has, or that there is none. The scenes are 0..5999 of the
split `train`; the students learn on others. The heads are discarded.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from loop import Figures, Run, train
from pool import NAMES, Pool
from student_data import shrink
from student_network import Eyes

PICTURES = 16
ABSENT = -1


def main() -> None:
    run = Run.parse("training/train_student_eyes.py", __doc__, steps=700, rate=2e-3, seed=4)
    rng, pool, eyes = run.prepare(), Pool.open(run.pool), Eyes()
    run.restore(eyes)
    heads = torch.nn.ModuleList([torch.nn.Conv2d(eyes.channels, len(names) + 1, 1) for names in NAMES])

    def loss(progress: float) -> tuple[torch.Tensor, Figures]:
        pictures, wanted = [], []
        for scene in rng.integers(len(pool.images), size=PICTURES):
            flip = slice(None, None, -1 if rng.random() < 0.5 else 1)
            picture = torch.from_numpy(np.ascontiguousarray(pool.images[scene][:, flip])).permute(2, 0, 1)
            pictures.append(shrink(picture))
            owner = pool.owner[scene][4::8, flip][:, 4::8]
            codes = np.concatenate([np.full((1, len(NAMES)), ABSENT), pool.codes[scene]])
            wanted.append(codes[owner] + 1)  # 0: no object
        maps, _ = eyes(torch.stack(pictures))
        target = torch.from_numpy(np.stack(wanted)).long()
        there = target[..., 0] > 0
        losses, figures = [], {}
        for k, (head, name) in enumerate(zip(heads, ("shape", "colour", "texture", "size"), strict=True)):
            told = head(maps)
            losses.append(F.cross_entropy(told, target[..., k]))
            figures[name] = (told.argmax(1) == target[..., k])[there].float().mean().item()
        return torch.stack(losses).sum(), figures

    train(run, eyes, list(heads.parameters()), len(pool.images), loss)


if __name__ == "__main__":
    main()
