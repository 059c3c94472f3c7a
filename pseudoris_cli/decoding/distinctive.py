"""Distinctive caption sampling (Pseudo-RIS §3.2), one token at a time for many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pseudoris_cli.decoding.distribution import Kept, Views, next_tokens, own_logprobs
from pseudoris_cli.decoding.kv_cache import PrefixStates
from pseudoris_cli.decoding.network import CaptionNetwork, CrossMemory
from pseudoris_cli.decoding.rules import Generated, Rules

Choose = Callable[[Kept, np.ndarray, int], np.ndarray]
"""(kept, rows, length) -> the entry of `kept` that each of these rows takes after its prefix of `length` tokens."""


@dataclass(frozen=True, slots=True)
class Group:
    """The crops of one image and kind: `first`.. in the cross memory; `similarity` [M, M] of their image latents."""

    first: int
    similarity: np.ndarray

    @property
    def size(self) -> int:
        return len(self.similarity)


@dataclass(frozen=True, slots=True)
class Row:
    """One caption to sample: for which crop of which group, by which sampler (top-k samplers first)."""

    group: int
    crop: int
    sampler: int


class _Crowd:
    """For every row the crops that it reads: its own first, then those it is contrasted with, -1 where there is none."""

    def __init__(self, groups: list[Group], rows: list[Row], rules: Rules) -> None:
        contrasts = [rules.contrasts(groups[row.group].size) for row in rows]
        most = max(groups[row.group].size if on else 1 for row, on in zip(rows, contrasts, strict=True))
        self.crops = np.full((len(rows), most), -1)
        self.weights = np.zeros((len(rows), most - 1), np.float32)
        for place, (row, on) in enumerate(zip(rows, contrasts, strict=True)):
            group = groups[row.group]
            self.crops[place, 0] = group.first + row.crop
            if on:
                others = np.delete(np.arange(group.size), row.crop)
                similarity = group.similarity[row.crop, others]
                if rules.similarity_clamp is not None:
                    similarity = np.maximum(similarity, rules.similarity_clamp)
                self.crops[place, 1 : group.size] = group.first + others
                self.weights[place, : group.size - 1] = rules.contrast * similarity / (group.size - 1)
        literal = rules.contrast_form == "literal"
        self.gain = 1.0 + (0.0 if literal else self.weights.sum(1, dtype=np.float64)) * np.ones(len(rows))

    @property
    def pairs(self) -> int:
        return int((self.crops >= 0).sum())


def sample_captions(
    network: CaptionNetwork, memory: CrossMemory, groups: list[Group], rows: list[Row], rules: Rules, choose: Choose
) -> list[Generated]:
    """Sample the caption of every row; rows that end leave the batch.

    A row whose length reaches `max_length - 1` gets the end token without being asked.
    """
    crowd = _Crowd(groups, rows, rules)
    states = PrefixStates(network, memory, len(rows), crowd.pairs, rules.max_length - 1)
    tokens: list[list[int]] = [[] for _ in rows]
    logprob = np.zeros(len(rows))
    alive, parent, last = np.arange(len(rows)), np.zeros(len(rows), np.int64), np.full(len(rows), rules.start)
    for length in range(1, rules.max_length):
        final = length == rules.max_length - 1
        step = _Step(states, crowd.crops[alive, :1] if final else crowd.crops[alive], parent, last)
        if final:
            logprob[alive] += own_logprobs(network, step.hidden, rules.end)[step.places[:, 0]]
            last = np.full(len(alive), rules.end)
        else:
            views, view = step.views(crowd.weights[alive], crowd.gain[alive])
            sampler = np.array([rows[row].sampler for row in alive])
            kept = next_tokens(network, rules, step.hidden, views, np.stack([view, sampler]), length)
            entry = choose(kept, alive, length)
            last = kept.token[entry]
            logprob[alive] += kept.logprob[entry]
        for row, token in zip(alive, last, strict=True):
            tokens[row].append(int(token))
        goes_on = (last != rules.end) & ~((last == rules.pad) & rules.pad_ends_row)
        alive, parent, last = alive[goes_on], step.prefix[goes_on], last[goes_on]
        if len(alive) == 0:
            break
    return [Generated(tuple(t), float(p)) for t, p in zip(tokens, logprob, strict=True)]


class _Step:
    """One more token for all rows: equal prefixes, and equal crops beside them, are computed once."""

    def __init__(self, states: PrefixStates, crops: np.ndarray, parent: np.ndarray, last: np.ndarray) -> None:
        (parents, tokens), prefix = np.unique(np.stack([parent, last]), axis=1, return_inverse=True)
        row, column = np.nonzero(crops >= 0)
        keys, place = np.unique(prefix[row] * states.crops + crops[row, column], return_inverse=True)
        slots, self.hidden = states.advance(parents, tokens, keys // states.crops, keys % states.crops)
        self.prefix: np.ndarray = slots[prefix]
        self.places = np.zeros(crops.shape, np.int64)
        self.places[row, column] = place

    def views(self, weights: np.ndarray, gain: np.ndarray) -> tuple[Views, np.ndarray]:
        """The different crops after different prefixes, and the view of every row."""
        _, first, view = np.unique(self.places[:, 0], return_index=True, return_inverse=True)
        return Views(self.places[first, 0], self.places[first, 1:], weights[first], gain[first]), view


def similarities(latents: torch.Tensor) -> np.ndarray:
    """Cosines of unit latents [M, D]: float32 [M, M]."""
    return (latents @ latents.T).cpu().numpy()
