"""Two listeners, each trained on one half of the images for the other half, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save

from pseudoris_cli import __version__
from pseudoris_cli.backends.listener_self import FOLDS, TRAINED_BY
from pseudoris_cli.backends.scene_listening import ABOUT, fold_of
from pseudoris_cli.errors import UsageError
from pseudoris_cli.self_training.labels import Labels
from pseudoris_cli.self_training.trainer import Run, Trained, train, vocabulary_of
from pseudoris_cli.storage.files import replace_file

LEAST_IMAGES = 20
"""Images of a half, at least: with fewer there is nothing to choose the best state by."""
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True, slots=True)
class SelfTrained:
    """What was written: images and captions learned from, words known, and how each half did on the other's labels."""

    path: Path
    images: int
    captions: int
    words: int
    folds: tuple[Trained, ...]

    @property
    def right(self) -> float:
        """How often the mask that a held-out caption was made for is picked, the mean of the halves."""
        return sum(one.right for one in self.folds) / len(self.folds)

    @property
    def chance(self) -> float:
        """How often blind guessing would pick it."""
        return sum(one.chance for one in self.folds) / len(self.folds)


def train_folds(labels: Labels, path: Path, run: Run, origin: str, progress: Progress) -> SelfTrained:
    """Train both networks and write them to `path`; network k is for the images of fold k, and has learned from the others.

    `origin` is the version of the filter run whose captions these are. UsageError (exit 2) for too few images. `progress` is
    told fold, step, and cost.
    """
    halves = [[one for one in labels.images if fold_of(one.key, FOLDS) == fold] for fold in range(FOLDS)]
    if min(map(len, halves)) < LEAST_IMAGES:
        raise UsageError(
            f"{len(labels.images):,} images have two masks or more and a kept caption; a listener of its own needs "
            f"{FOLDS * LEAST_IMAGES} at the very least, and thousands to be good. Work on more images first"
        )
    words = vocabulary_of(labels.images)
    trained = []
    for fold in range(FOLDS):
        taught = [one for other in range(FOLDS) if other != fold for one in halves[other]]
        trained.append(
            train(
                taught,
                halves[fold],
                words,
                replace(run, seed=run.seed + fold),
                lambda *told, of=fold: progress(of, *told),
            )
        )
    captions = sum(len(of) for one in labels.images for of in one.captions)
    tensors = {
        f"{fold}.{name}": value.half().cpu().contiguous()
        for fold, one in enumerate(trained)
        for name, value in one.network.state_dict().items()
    }
    about = {
        "words": words.words,
        "folds": FOLDS,
        "made_by": f"{TRAINED_BY} {__version__}",
        "filter": origin,
        "images": len(labels.images),
        "captions": captions,
        "seed": run.seed,
        "steps": [one.step for one in trained],
        "right": [round(one.right, 4) for one in trained],
    }
    # one entry: safetensors writes several in an order of its own, and equal training must give equal bytes
    replace_file(path, save(tensors, {ABOUT: json.dumps(about)}))
    return SelfTrained(path, len(labels.images), captions, len(words.words), tuple(trained))
