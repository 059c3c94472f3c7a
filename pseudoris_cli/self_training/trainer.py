"""Learning from kept captions: the mask for which a caption was made is what it means, the other masks are the wrong answers.

Where a caption fits two objects, now the one and now the other is the right answer, so both come to a half, and the listener says
"several". Every object also foretells the words of its own captions; that helps the network to look, and is discarded. The best
state and the temperature are chosen on images that were not trained on, by the probability of their own labels.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pseudoris_cli.backends.listener_self import MOST_WORDS
from pseudoris_cli.networks.listener.inputs import GEOMETRY, Vocabulary
from pseudoris_cli.networks.listener.network import WIDTH, SceneListener, choice
from pseudoris_cli.self_training.labels import LabelledImage

IMAGES, TEXTS = 16, 10
"""Images of a step, and captions of each."""
RATE, DECAY, WARMUP = 1.5e-3, 0.02, 100
FORETELL = 5.0
"""Weight of the loss of the words. Most words are absent from an object's captions, so their mean loss is small."""
MOST_OBJECTS = 64
"""Masks of an image in training; of more, those with captions and others up to this number are drawn for each step."""
TRIED_EVERY, TRIED_IMAGES = 100, 400
TEMPERATURES = np.round(np.arange(0.2, 1.51, 0.05), 2).tolist()
Progress = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Run:
    """How many steps, the seed of weights and batches, and the torch device."""

    steps: int
    seed: int = 0
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, the step of its best state, and on held-out images: how often it picks the mask that a caption was made for,
    how often blind guessing would, and the mean negative log-probability of that mask."""

    network: SceneListener
    step: int
    right: float
    chance: float
    cost: float


def vocabulary_of(images: Sequence[LabelledImage]) -> Vocabulary:
    """The words that at least two captions have, the most common first."""
    texts = (text for one in images for captions in one.captions for text in captions)
    counts = Counter(word for text in texts for word in set(text.lower().split()))
    order = sorted((word for word, count in counts.items() if count > 1), key=lambda word: (-counts[word], word))
    return Vocabulary(order[:MOST_WORDS])


@dataclass(frozen=True, slots=True)
class Batch:
    """B images with M objects at most: crops [N, 4, S, S] of all objects, places [B, M, GEOMETRY], present bool [B, M], the
    captions of every object, and for each image TEXTS texts with the object that each was made for."""

    crops: torch.Tensor
    places: torch.Tensor
    present: torch.Tensor
    captions: list[tuple[str, ...]]
    texts: list[str]
    target: torch.Tensor


def draw_batch(images: Sequence[LabelledImage], rng: np.random.Generator, vary: bool) -> Batch:
    """All these images, and texts drawn at random. `vary` changes the light a little.

    Pictures are not mirrored: captions may say left and right.
    """
    shown = [_objects(one, rng) for one in images]
    most = max(map(len, shown))
    places = torch.zeros(len(images), most, GEOMETRY)
    present = torch.zeros(len(images), most, dtype=torch.bool)
    crops, captions, texts, target = [], [], [], []
    for row, (one, objects) in enumerate(zip(images, shown, strict=True)):
        places[row, : len(objects)], present[row, : len(objects)] = one.places[objects], True
        pixels = one.crops[objects].float()
        if vary:
            light = torch.from_numpy(rng.uniform(0.94, 1.06, (len(objects), 1, 1, 1))).float()
            pixels[:, :3] = (pixels[:, :3] * light).clamp(max=255)
        crops.append(pixels)
        of = [one.captions[k] for k in objects]
        captions += of
        said = [k for k, own in enumerate(of) if own]
        for which in rng.choice(said, TEXTS):
            texts.append(of[which][rng.integers(len(of[which]))])
            target.append(int(which))
    return Batch(torch.cat(crops), places, present, captions, texts, torch.tensor(target))


def _objects(one: LabelledImage, rng: np.random.Generator) -> list[int]:
    if len(one.captions) <= MOST_OBJECTS:
        return list(range(len(one.captions)))
    order = rng.permutation(len(one.captions)).tolist()
    order.sort(key=lambda k: not one.captions[k])
    return sorted(order[:MOST_OBJECTS])


class Trainer:
    """One network and its optimizer. Weights and batches depend on the seed alone."""

    def __init__(self, images: Sequence[LabelledImage], words: Vocabulary, seed: int, device: str) -> None:
        self.images, self.words, self.device = images, words, device
        self.rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SceneListener(len(words)).to(device)
            self.foretell = torch.nn.Linear(WIDTH, len(words)).to(device)
        self.parameters = [*self.network.parameters(), *self.foretell.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, betas=(0.9, 0.98), weight_decay=DECAY)

    def logits(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded objects [N, WIDTH], and logits of "fits" [B * TEXTS, M]."""
        places, present = batch.places.to(self.device), batch.present.to(self.device)
        encoded = self.network.encode(batch.crops.to(self.device), places[present])
        objects = torch.zeros(*present.shape, WIDTH, device=self.device)
        objects[present] = encoded
        repeated = (x.repeat_interleave(TEXTS, 0) for x in (objects, places, present))
        return encoded, self.network(*repeated, self.words.read(batch.texts).to(self.device))

    def step(self, rate: float) -> float:
        """One step at a learning rate; returns the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        chosen = [self.images[k] for k in self.rng.integers(len(self.images), size=IMAGES)]
        batch = draw_batch(chosen, self.rng, vary=True)
        encoded, fits = self.logits(batch)
        meant = F.one_hot(batch.target, batch.present.shape[1]).float().to(self.device)
        there = batch.present.repeat_interleave(TEXTS, 0).to(self.device)
        loss = F.binary_cross_entropy_with_logits(fits[there], meant[there]) + FORETELL * self._words_loss(
            encoded, batch
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def _words_loss(self, encoded: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Cross-entropy of the share of an object's captions that hold each word."""
        spoken = [k for k, captions in enumerate(batch.captions) if captions]
        share = torch.zeros(len(spoken), len(self.words))
        for row, k in enumerate(spoken):
            for words in self.words.read(batch.captions[k]):
                share[row, words.unique()] += 1 / len(batch.captions[k])
        share[:, :2] = 0  # no word, and unknown ones
        return F.binary_cross_entropy_with_logits(self.foretell(encoded[spoken]), share.to(self.device))

    @torch.no_grad()
    def answers(self, images: Sequence[LabelledImage], seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Logits and targets of texts about images, the same texts for the same seed."""
        rng, found = np.random.default_rng(seed), []
        self.network.eval()
        for start in range(0, len(images), IMAGES):
            batch = draw_batch(images[start : start + IMAGES], rng, vary=False)
            found.append((self.logits(batch)[1].cpu(), batch.target))
        self.network.train()
        return found


def cost(found: Sequence[tuple[torch.Tensor, torch.Tensor]], factor: float = 1.0) -> tuple[float, float]:
    """Mean negative log-probability of "this one and no other" of the right masks, and the share that is picked."""
    told = [(choice(fits * factor), target) for fits, target in found]
    losses = [-answer[range(len(target)), target].clamp(min=1e-9).log() for answer, target in told]
    right = [(answer.argmax(1) == target).float() for answer, target in told]
    return float(torch.cat(losses).mean()), float(torch.cat(right).mean())


def train(
    images: Sequence[LabelledImage],
    held_out: Sequence[LabelledImage],
    words: Vocabulary,
    run: Run,
    progress: Progress,
) -> Trained:
    """Train on `images`; the state and the temperature are those that tell the labels of `held_out` best."""
    trainer = Trainer(images, words, run.seed, run.device)
    tried = held_out[:TRIED_IMAGES]
    best: tuple[float, int, dict[str, torch.Tensor]] | None = None
    for step in range(run.steps):
        decay = max(0.0, step / run.steps - 0.6) / 0.4
        trainer.step(RATE * min(1.0, (step + 1) / WARMUP) * (1 - 0.99 * decay))
        if (step + 1) % TRIED_EVERY == 0 or step + 1 == run.steps:
            told, _ = cost(trainer.answers(tried, run.seed))
            progress(step + 1, told)
            if best is None or told < best[0]:
                best = told, step + 1, copy.deepcopy(trainer.network.state_dict())
    assert best is not None, "there is at least one step"
    trainer.network.load_state_dict(best[2])
    found = trainer.answers(tried, run.seed)
    factor = min(TEMPERATURES, key=lambda one: cost(found, one)[0])
    trainer.network.load_state_dict(best[2] | {"temperature": torch.tensor(factor)})
    lowest, right = cost(found, factor)
    chance = float(np.mean([1 / len(one.captions) for one in tried]))
    return Trained(trainer.network, best[1], right, chance, lowest)
