"""Train one student on one selection, and test it:

    python training/train_student.py --labels LABELS --eyes eyes.safetensors --selection both --seed 0 --out both-0.npz

`LABELS` is what make_labels.py wrote. The same number of expressions is drawn from every selection, and every student takes the
same steps; so students differ in what the selection kept, and in nothing else. The test is 200 scenes of the split `evaluation`
that nothing else has used, with true expressions and exact masks. The file holds, for every expression of the test, its scene,
its kind, and the intersection and the union (pixels) of the drawn mask and the exact one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from checkpoint import learning_rate
from safetensors.torch import load_file
from student_data import Lesson, Question, lessons, questions
from student_network import Student

from pseudoris_cli.demo import expressions, grammar
from pseudoris_cli.networks.listener.inputs import LONGEST, Vocabulary

PICTURES, TEXTS = 8, 5
WORDS = Vocabulary((*grammar.WORDS, *expressions.WORDS))


def step_loss(net: Student, taught: list[Lesson], rng: np.random.Generator) -> torch.Tensor:
    """Cross-entropy and Dice loss of a batch. Pictures are not mirrored, as expressions may say left and right."""
    chosen = [taught[k] for k in rng.integers(len(taught), size=PICTURES)]
    texts, masks = [], []
    for one in chosen:
        for k in rng.integers(len(one.said), size=TEXTS):
            texts.append(one.said[k][1])
            masks.append(one.masks[one.said[k][0]])
    light = torch.from_numpy(rng.uniform(0.94, 1.06, (PICTURES, 1, 1, 1))).float()
    maps, edges = net.look((torch.stack([one.picture for one in chosen]).float() * light).clamp(max=255))
    logits = net(maps.repeat_interleave(TEXTS, 0), edges.repeat_interleave(TEXTS, 0), read(texts))
    wanted, drawn = torch.stack(masks), logits.sigmoid()
    both = (drawn * wanted).sum((1, 2))
    dice = 1 - (2 * both + 1) / (drawn.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()


def read(texts: list[str]) -> torch.Tensor:
    """Numbers of the words, cut to the longest text."""
    words = WORDS.read(texts)
    return words[:, : max(int((words != 0).sum(1).max()), 1)]


def test(net: Student, asked: list[Question]) -> dict[str, np.ndarray]:
    """Scene, kind, intersection and union of every expression of the test, in pixels of the whole picture."""
    found: dict[str, list[np.ndarray]] = {"scene": [], "kind": [], "intersection": [], "union": []}
    with torch.inference_mode():
        for number, one in enumerate(asked):
            maps, edges = net.look(one.picture[None])
            words = read([text for _, text, _ in one.asked])
            logits = net(maps.expand(len(words), *maps.shape[1:]), edges.expand(len(words), *edges.shape[1:]), words)
            drawn = F.interpolate(logits[:, None], one.masks.shape[-2:], mode="bilinear")[:, 0] > 0
            true = one.masks[[k for k, _, _ in one.asked]]
            found["scene"].append(np.full(len(words), number))
            found["kind"].append(np.array([kind for _, _, kind in one.asked]))
            found["intersection"].append((drawn & true).sum((1, 2)).numpy())
            found["union"].append((drawn | true).sum((1, 2)).numpy())
    return {name: np.concatenate(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--selection", required=True, help="a folder of LABELS/exports, or a name in student_data.py")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--eyes", type=Path, required=True, help="what train_student_eyes.py wrote")
    parser.add_argument("--expressions", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--scenes", type=int, nargs=2, default=(6000, 7000), help="first and last + 1, for the truth")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    taught = lessons(options.labels, options.selection, range(*options.scenes), options.expressions, options.seed)
    net = Student(len(WORDS), LONGEST)
    net.eyes.load_state_dict({name: value.float() for name, value in load_file(options.eyes).items()})
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.02, betas=(0.9, 0.98))
    losses, start = [], time.process_time()
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, options.steps, options.rate)
        loss = step_loss(net, taught, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 100 == 0:
            print(step + 1, f"{time.process_time() - start:.0f} CPU-s, loss {np.mean(losses[-100:]):.3f}", flush=True)
    figures = test(net.eval(), questions())
    iou = figures["intersection"] / figures["union"].clip(1)
    print(
        f"{options.selection}, seed {options.seed}: mIoU {100 * iou[figures['kind'] == 'attribute'].mean():.1f} (attributes)"
    )
    np.savez(
        options.out,
        selection=options.selection,
        seed=options.seed,
        expressions=options.expressions,
        steps=options.steps,
        **figures,
    )


if __name__ == "__main__":
    main()
