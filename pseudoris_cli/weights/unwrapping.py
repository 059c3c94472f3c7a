"""From what a training script saved to the tensors of a network: containers and prefixes of wrappers are taken off.

`torch.compile`, data parallelism, FSDP, DeepSpeed and Lightning save the same tensors under longer names, beside optimizers and
averaged copies. The part of the file whose names end in those of the network is the network's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pseudoris_cli.errors import UsageError

_NEVER_NAMES = frozenset(
    {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "_fpw_module"}
)
"""Parts of names that wrappers insert at any depth."""
_WRAPPERS = frozenset({"module", "model", "net", "network", "_model", "base_model", "encoder_decoder"})
_CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "module",
    "network",
    "net",
    "weights",
    "params",
)
_DEPTH = 2


@dataclass(frozen=True)
class _Found:
    """Names that fit the network: how many, below which prefix, in which mapping; a lower rank is likelier."""

    count: int
    rank: int
    where: str
    prefix: str
    names: dict[str, Any]


def unwrapped(checkpoint: Mapping[str, Any], wanted: Collection[str], name: str) -> dict[str, Any]:
    """The part of a checkpoint that has the `wanted` names, under these names; all of it, as it is, where nothing has.

    Nothing is dropped within the part, so that a strict comparison still sees what does not belong there. Raises UsageError
    (exit 2) where two parts fit equally well and none has a usual name, and for adapters and names of Caffe2.
    """
    _check_is_whole(checkpoint, name)
    goal = frozenset(wanted)
    found = [one for path, mapping in _mappings(checkpoint) for one in _fits(path, mapping, goal)]
    if not found:
        return dict(checkpoint)
    best = max(one.count for one in found)
    likeliest = min(one.rank for one in found if one.count == best)
    equal = [one for one in found if (one.count, one.rank) == (best, likeliest)]
    if len(equal) > 1 and likeliest:
        parts = " and ".join(repr(f"{one.where}{one.prefix}") for one in equal[:3])
        raise UsageError(f"{name} holds several networks of this kind, {parts}; save the tensors of one as a file")
    chosen = equal[0]
    cut = len(chosen.prefix)
    return {key[cut:]: value for key, value in chosen.names.items() if key.startswith(chosen.prefix)}


def _mappings(
    checkpoint: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    yield path, checkpoint
    if len(path) < _DEPTH:
        for key, value in checkpoint.items():
            if isinstance(value, Mapping):
                yield from _mappings(value, (*path, str(key)))


def _fits(path: tuple[str, ...], mapping: Mapping[str, Any], wanted: frozenset[str]) -> list[_Found]:
    names: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for key, value in mapping.items():
        parts = [part for part in str(key).split(".") if part not in _NEVER_NAMES]
        names[".".join(parts)] = value
        for cut in range(len(parts)):
            if ".".join(parts[cut:]) in wanted:
                counts["".join(f"{part}." for part in parts[:cut])] += 1
    where = "".join(f"{part}: " for part in path)
    return [_Found(count, _rank(path, prefix), where, prefix, names) for prefix, count in counts.items()]


def _rank(path: tuple[str, ...], prefix: str) -> int:
    """0 for the place where a network usually is, 1 for others, such as averaged copies."""
    usual = all(part in _CONTAINERS for part in path) and all(part in _WRAPPERS for part in prefix.split(".")[:-1])
    return 0 if usual else 1


def _check_is_whole(checkpoint: Mapping[str, Any], name: str) -> None:
    if "blobs" in checkpoint or any(str(key).endswith("_w") and "." not in str(key) for key in checkpoint):
        raise UsageError(
            f"{name} has the tensor names of Caffe2 (Detectron 1); convert it to detectron2's with its own tools first"
        )
    for _, mapping in _mappings(checkpoint):
        if mapping and all(".lora_" in str(key) or "lora_" in str(key).split(".")[-1] for key in mapping):
            raise UsageError(
                f"{name} holds LoRA adapters only; merge them into the network that they belong to and save that"
            )
