"""A small listener that was trained on scenes: it sees the crop, mask and place of every object, and reads the words it knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from pseudoris_cli.errors import UsageError
from pseudoris_cli.halving import Halving
from pseudoris_cli.method.protocols import Lineup, Listener
from pseudoris_cli.rle import decode_rle
from pseudoris_cli.settings.models import JudgeSettings, Numerics
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    import torch

    from pseudoris_cli.networks.listener.inputs import Vocabulary
    from pseudoris_cli.networks.listener.network import SceneListener
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "listener"
_TEXTS = 256
"""Expressions in one call of the network."""


class Settings(JudgeSettings):
    """The listener of the demo world; its weights know no other words and objects."""

    backend: Literal["listener_demo"] = Field("listener_demo", description="who is asked")
    checkpoint: str = Field("demo_listener", description="registry name, path or random:SEED")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(checkpoint="random:0")


def load(settings: Settings, numerics: Numerics, device: str) -> DemoListener:
    """Build the network and read its weights; it computes in fp32 whatever `numerics` says, as it is tiny.

    MissingDependency (exit 3) for a missing checkpoint, UsageError (exit 2) for weights of another network.
    """
    import torch

    from pseudoris_cli.networks.listener.inputs import Vocabulary
    from pseudoris_cli.networks.listener.network import SceneListener

    checkpoint = weights.resolve(settings.checkpoint)
    if checkpoint.path is None:
        vocabulary = Vocabulary(_demo_words())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(checkpoint.seed or 0)
            network = SceneListener(len(vocabulary))
    else:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            with safe_open(checkpoint.path, "pt") as file:
                vocabulary = Vocabulary(json.loads((file.metadata() or {})["words"]))
            network = SceneListener(len(vocabulary))
            network.load_state_dict({name: value.float() for name, value in load_file(checkpoint.path).items()})
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).partition("\n")[0][:200]
            raise UsageError(f"{checkpoint.path} holds no weights of listener_demo ({reason})") from error
    return DemoListener(network.eval().requires_grad_(False).to(device), vocabulary, device)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device."""
    from pseudoris_cli.networks.listener.memory import memory as of_network

    return of_network(len(set(_demo_words())) + 2, _TEXTS)


def _demo_words() -> tuple[str, ...]:
    from pseudoris_cli.demo import expressions, grammar

    return (*grammar.WORDS, *expressions.WORDS)


class DemoListener(Listener):
    """A `Listener` without numbers: the order of the masks cannot matter, so one look is enough."""

    numbered = False

    def __init__(self, network: SceneListener, vocabulary: Vocabulary, device: str) -> None:
        self._network, self._vocabulary, self._device = network, vocabulary, device
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
                masks = [decode_rle(mask.rle).astype(bool) for mask in one.masks]
                places = places_of(masks).to(self._device)
                objects = self._network.encode(crops_of(one.image_rgb, masks).to(self._device), places)
                words = self._vocabulary.read(one.expressions).to(self._device)
                found.append(self._asked(objects, places, words) if len(words) else torch.zeros(0, len(masks)))
        return found

    def _asked(self, objects: torch.Tensor, places: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        import torch

        chunks = self._halving.chunks(len(words), _TEXTS, lambda part: self._ask(objects, places, words[part]))
        return torch.cat([*chunks])

    def _ask(self, objects: torch.Tensor, places: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        import torch

        shape = (len(words), *objects.shape)
        present = torch.ones(shape[:2], dtype=torch.bool, device=self._device)
        logits: torch.Tensor = self._network(
            objects.expand(shape), places.expand(len(words), *places.shape), present, words
        )
        return logits
