"""A small listener that was trained on scenes: it sees the crop, mask and place of every object, and reads the words it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pseudoris_cli.backends.scene_listening import TEXTS_AT_ONCE, SceneListening, random_network, read_networks
from pseudoris_cli.settings.models import JudgeSettings, Numerics
from pseudoris_cli.weights import registry as weights

if TYPE_CHECKING:
    from pseudoris_cli.networks.memory import Memory, Work

ROLE = "listener"


class Settings(JudgeSettings):
    """The listener of the demo world; its weights know no other words and objects."""

    backend: Literal["listener_demo"] = Field("listener_demo", description="who is asked")
    checkpoint: str = Field("demo_listener", description="registry name, path or random:SEED")

    @classmethod
    def tiny(cls) -> Settings:
        return cls(checkpoint="random:0")


def load(settings: Settings, numerics: Numerics, device: str) -> SceneListening:
    """Build the network and read its weights; it computes in fp32 whatever `numerics` says, as it is tiny.

    MissingDependency (exit 3) for a missing checkpoint, UsageError (exit 2) for weights of another network.
    """
    from pseudoris_cli.networks.listener.inputs import Vocabulary

    checkpoint = weights.resolve(settings.checkpoint)
    if checkpoint.path is None:
        vocabulary = Vocabulary(_demo_words())
        networks = [random_network(vocabulary, checkpoint.seed or 0)]
    else:
        networks, vocabulary = read_networks(checkpoint.path, "listener_demo")
    return SceneListening(networks, vocabulary, device)


def memory(settings: Settings, work: Work) -> Memory:
    """What `load` and one call need of a device."""
    from pseudoris_cli.networks.listener.memory import memory as of_network

    return of_network(len(set(_demo_words())) + 2, TEXTS_AT_ONCE)


def _demo_words() -> tuple[str, ...]:
    from pseudoris_cli.demo import expressions, grammar

    return (*grammar.WORDS, *expressions.WORDS)
