"""Fit the listener's temperature:  python training/calibrate_listener.py --weights listener.safetensors --out listener.safetensors

A network that was trained to the end is surer than it is right. One factor of its logits is fitted on texts about 300 scenes
of the split `tune`, with masks degraded as in training, so that the probability of the right answer (the one object that is
meant, or none and several) is as large as it can be. It changes no choice among objects, and it is stored with the weights.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from crop_batches import TRUE_MASKS, degrade
from located_phrases import draw, place
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pseudoris_cli.demo.world import render_scene, scene_seed
from pseudoris_cli.networks.listener.inputs import Vocabulary, crops_of, places_of
from pseudoris_cli.networks.listener.network import SceneListener, choice

SCENES, TEXTS, SEED = 300, 20, 6


def logits_and_answers(net: SceneListener, words: Vocabulary) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each scene the logits [E, M] of its texts, and the right answers [E] (M for none or several)."""
    rng, found = np.random.default_rng(SEED), []
    for index in range(SCENES):
        scene = render_scene(scene_seed("tune", index))
        objects = [place(mask, of) for mask, of in zip(scene.masks, scene.attributes, strict=True)]
        masks = [mask if rng.random() < TRUE_MASKS else degrade(mask, rng) for mask in scene.masks]
        drawn = [draw(objects, rng) for _ in range(TEXTS)]
        places = places_of(masks)
        seen = net.encode(crops_of(scene.image_rgb, masks), places)
        shape = (TEXTS, *seen.shape)
        present = torch.ones(shape[:2], dtype=torch.bool)
        fits = net(seen.expand(shape), places.expand(TEXTS, *places.shape), present, words.read([t for t, _ in drawn]))
        answers = [next(iter(meant)) if len(meant) == 1 else len(masks) for _, meant in drawn]
        found.append((fits, torch.tensor(answers)))
    return found


def cost(found: list[tuple[torch.Tensor, torch.Tensor]], factor: float) -> float:
    """Mean negative log-probability of the right answers."""
    losses = [-choice(fits * factor).clamp(min=1e-9).log()[range(len(answers)), answers] for fits, answers in found]
    return float(torch.cat(losses).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    state = load_file(arguments.weights)
    with safe_open(arguments.weights, "pt") as file:
        metadata = dict(file.metadata())
    words = Vocabulary(json.loads(metadata["words"]))
    net = SceneListener(len(words)).eval()
    net.load_state_dict({name: value.float() for name, value in state.items()} | {"temperature": torch.ones(())})
    with torch.inference_mode():
        found = logits_and_answers(net, words)
        costs = {factor: cost(found, factor) for factor in np.round(np.arange(0.3, 2.01, 0.05), 2).tolist()}
    best = min(costs, key=lambda factor: costs[factor])
    print(f"factor {best}: {costs[best]:.4f} (1.0: {costs[1.0]:.4f}) on {SCENES} scenes, {TEXTS} texts each")
    state["temperature"] = torch.tensor(best).half()
    metadata["calibrated"] = json.dumps({"split": "tune", "scenes": SCENES, "texts": TEXTS, "factor": best})
    save_file(state, arguments.out, metadata)


if __name__ == "__main__":
    main()
