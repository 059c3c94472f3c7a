"""The listener that `pseudoris train-listener` trains on the captions that a work directory kept: it knows no truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pseudoris_cli.backends.scene_listening import TEXTS_AT_ONCE, SceneListening, random_network, read_networks
from pseudoris_cli.errors import MissingDependency
from pseudoris_cli.settings.models import JudgeSettings, Numerics
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "listener"
TRAINED_BY = "pseudoris train-listener"
FOLDS = 2
"""Networks in a file: each judges the images that the other has learned from."""
MOST_WORDS = 5000
_TINY_WORDS = ("a", "the", "red", "green", "left", "large")


class Settings(JudgeSettings):
    """A small listener of your own images."""

    backend: Literal["listener_self"] = Field("listener_self", description="who is asked")
    checkpoint: str = Field("", description="the file that `pseudoris train-listener` wrote, or random:SEED")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(checkpoint="random:0")


def version(settings: Settings) -> str:
    """The digest of the weights. MissingDependency (exit 3) if none are named, or they are not here."""
    return weights.resolve(_named(settings)).digest


def load(settings: Settings, numerics: Numerics, device: str) -> SceneListening:
    """Read the networks that were trained, one for each half of the images; they compute in fp32 whatever `numerics` says.

    Every image is judged by the network that has not seen its captions in training. MissingDependency (exit 3) for a missing
    checkpoint, UsageError (exit 2) if none is named or the weights are another network's.
    """
    from pseudoris_cli.networks.listener.inputs import Vocabulary

    checkpoint = weights.resolve(_named(settings))
    if checkpoint.path is None:
        vocabulary = Vocabulary(_TINY_WORDS)
        networks = [random_network(vocabulary, (checkpoint.seed or 0) + fold) for fold in range(FOLDS)]
    else:
        networks, vocabulary = read_networks(checkpoint.path, "listener_self")
    return SceneListening(networks, vocabulary, device)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device, with as many words as a listener of one's own can have."""
    from pseudoris_cli.networks.listener.memory import memory as of_network

    one = of_network(MOST_WORDS + 2, TEXTS_AT_ONCE)
    return replace(one, weights=FOLDS * one.weights)


def _named(settings: Settings) -> str:
    if not settings.checkpoint:
        raise MissingDependency(
            f"filter.judge.checkpoint names no weights; train them on what you have kept:  {TRAINED_BY}\n"
            "it prints the setting to give"
        )
    return settings.checkpoint
