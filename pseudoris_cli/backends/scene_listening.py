"""The listeners that are small networks over crops, places and words: what `listener_demo` and `listener_self` share."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pseudoris_cli.errors import UsageError
from pseudoris_cli.halving import Halving
from pseudoris_cli.method.protocols import Lineup, Listener
from pseudoris_cli.rle import decode_rle

if TYPE_CHECKING:
    import torch

    from pseudoris_cli.networks.listener.inputs import Vocabulary
    from pseudoris_cli.networks.listener.network import SceneListener

ABOUT = "listener"
"""The entry of a file's metadata that says everything about networks trained on one's own captions, as JSON."""
TEXTS_AT_ONCE = 256
"""Expressions in one call of the network."""


def fold_of(image_key: str, folds: int) -> int:
    """The half (or other share) of the images that an image belongs to: the same in every run and on every machine."""
    return zlib.crc32(image_key.encode("utf-8", "surrogatepass")) % folds


def read_networks(path: Path, backend: str) -> tuple[list[SceneListener], Vocabulary]:
    """The networks of a safetensors file, one for each fold, and the words that they know.

    Tensors of several folds are named `0.…`, `1.…`; a file without folds holds one network. UsageError (exit 2) for any
    other file.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    from pseudoris_cli.networks.listener.inputs import Vocabulary
    from pseudoris_cli.networks.listener.network import SceneListener

    try:
        with safe_open(path, "pt") as file:
            stored = file.metadata() or {}
        about = json.loads(stored[ABOUT]) if ABOUT in stored else {"words": json.loads(stored["words"]), "folds": 1}
        vocabulary, folds = Vocabulary(about["words"]), int(about["folds"])
        tensors = {name: value.float() for name, value in load_file(path).items()}
        networks = []
        for fold in range(folds):
            start = f"{fold}." if folds > 1 else ""
            network = SceneListener(len(vocabulary))
            network.load_state_dict(
                {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            )
            networks.append(network)
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(f"{path} holds no weights of {backend} ({reason})") from error
    return networks, vocabulary


def random_network(vocabulary: Vocabulary, seed: int) -> SceneListener:
    """A network that has learned nothing, for tests."""
    import torch

    from pseudoris_cli.networks.listener.network import SceneListener

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SceneListener(len(vocabulary))


class SceneListening(Listener):
    """A `Listener` without numbers: the order of the masks cannot matter, so one look is enough.

    Of several networks the one of an image's own fold answers, which has not seen that image in training. They compute in
    fp32, as they are tiny.
    """

    numbered = False

    def __init__(self, networks: Sequence[SceneListener], vocabulary: Vocabulary, device: str) -> None:
        self._networks = [network.eval().requires_grad_(False).to(device) for network in networks]
        self._vocabulary, self._device = vocabulary, device
        self._halving = Halving()

    @property
    def halvings(self) -> int:
        """How often memory ran out and expressions were asked in halves."""
        return self._halving.times

    def listen(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M + 1] of each image (see the protocol)."""
        from pseudoris_cli.networks.listener.network import choice

        return [choice(logits).double().cpu().numpy() for logits in self._logits(lineups)]

    def fits(self, lineups: Sequence[Lineup]) -> list[np.ndarray]:
        """Probabilities [E, M] that each mask fits (see the protocol)."""
        return [logits.sigmoid().double().cpu().numpy() for logits in self._logits(lineups)]

    def _logits(self, lineups: Sequence[Lineup]) -> list[torch.Tensor]:
        import torch

        from pseudoris_cli.networks.listener.inputs import crops_of, places_of

        found = []
        with torch.inference_mode():
            for one in lineups:
                network = self._networks[fold_of(one.key, len(self._networks))]
                masks = [decode_rle(mask.rle).astype(bool) for mask in one.masks]
                places = places_of(masks).to(self._device)
                objects = network.encode(crops_of(one.image_rgb, masks).to(self._device), places)
                words = self._vocabulary.read(one.expressions).to(self._device)
                asked = self._asked(network, objects, places, words) if len(words) else torch.zeros(0, len(masks))
                found.append(asked)
        return found

    def _asked(
        self, network: SceneListener, objects: torch.Tensor, places: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        import torch

        def ask(part: slice) -> torch.Tensor:
            return self._ask(network, objects, places, words[part])

        return torch.cat([*self._halving.chunks(len(words), TEXTS_AT_ONCE, ask)])

    def _ask(
        self, network: SceneListener, objects: torch.Tensor, places: torch.Tensor, words: torch.Tensor
    ) -> torch.Tensor:
        import torch

        shape = (len(words), *objects.shape)
        present = torch.ones(shape[:2], dtype=torch.bool, device=self._device)
        logits: torch.Tensor = network(objects.expand(shape), places.expand(len(words), *places.shape), present, words)
        return logits
