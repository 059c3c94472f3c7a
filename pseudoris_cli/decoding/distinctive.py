"""Distinctive caption sampling (Pseudo-RIS §3.2), one token at a time for many rows; a row is one caption in the making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pseudoris_cli import watching
from pseudoris_cli.decoding.distribution import KeptTokens, Views, next_tokens, own_logprobs
from pseudoris_cli.decoding.kv_cache import PrefixStates
from pseudoris_cli.decoding.network import CaptionNetwork, CrossKV
from pseudoris_cli.decoding.rules import DecodingRules, Generated

TokenChooser = Callable[[KeptTokens, np.ndarray, int], np.ndarray]
"""(kept, rows, length) -> for each of these rows the entry of `kept` that is its next token after `length` tokens."""


@dataclass(frozen=True, slots=True)
class ContrastGroup:
    """The M crops of one image and crop kind, which are contrasted with each other.

    They are crops `first` to `first + M - 1` of the cross-attention KV cache; `similarity` [M, M] holds cosines.
    """

    first: int
    similarity: np.ndarray

    @property
    def size(self) -> int:
        return len(self.similarity)


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One caption to sample: indices of its group, of its crop in the group, and of its sampler (top-k samplers first)."""

    group: int
    crop: int
    sampler: int


class ContrastSet:
    """For every row its own crop and the crops that it is contrasted with.

    `crops` int [R, 1 + J] has the own crop first and -1 where there is none; `weights` [R, J] are the factors of the other
    crops' logits and `own_logit_scale` [R] that of the own logits (1 for the literal form, else 1 + the row's weights).
    """

    def __init__(self, groups: list[ContrastGroup], rows: list[SampleRow], rules: DecodingRules) -> None:
        contrasts = [rules.contrasts(groups[row.group].size) for row in rows]
        most = max(groups[row.group].size if on else 1 for row, on in zip(rows, contrasts, strict=True))
        self.crops = np.full((len(rows), most), -1)
        self.weights = np.zeros((len(rows), most - 1), np.float32)
        for index, (row, on) in enumerate(zip(rows, contrasts, strict=True)):
            group = groups[row.group]
            self.crops[index, 0] = group.first + row.crop
            if on:
                others = np.delete(np.arange(group.size), row.crop)
                similarity = group.similarity[row.crop, others]
                if rules.similarity_clamp is not None:
                    similarity = np.maximum(similarity, rules.similarity_clamp)
                self.crops[index, 1 : group.size] = group.first + others
                self.weights[index, : group.size - 1] = rules.contrast * similarity / (group.size - 1)
        literal = rules.contrast_form == "literal"
        self.own_logit_scale = 1.0 + (0.0 if literal else self.weights.sum(1, dtype=np.float64)) * np.ones(len(rows))

    @property
    def pairs(self) -> int:
        """(row, crop) pairs that are decoded."""
        return int((self.crops >= 0).sum())


def sample_captions(
    network: CaptionNetwork,
    cross_kv: CrossKV,
    groups: list[ContrastGroup],
    rows: list[SampleRow],
    rules: DecodingRules,
    choose: TokenChooser,
) -> list[Generated]:
    """Sample the caption of every row; finished rows leave the batch.

    A row that reaches `max_length - 1` tokens, the start included, gets the end token without sampling.
    """
    contrast = ContrastSet(groups, rows, rules)
    states = PrefixStates(network, cross_kv, len(rows), contrast.pairs, rules.max_length - 1)
    tokens: list[list[int]] = [[] for _ in rows]
    logprob = np.zeros(len(rows))
    alive, parent, last = np.arange(len(rows)), np.zeros(len(rows), np.int64), np.full(len(rows), rules.start)
    for length in range(1, rules.max_length):
        watching.tell((length - 1) / rules.max_length)
        final = length == rules.max_length - 1
        step = _Step(states, contrast.crops[alive, :1] if final else contrast.crops[alive], parent, last)
        if final:
            logprob[alive] += own_logprobs(network, step.hidden, rules.end)[step.pairs[:, 0]]
            last = np.full(len(alive), rules.end)
        else:
            views, view = step.views(contrast.weights[alive], contrast.own_logit_scale[alive])
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
    """One more token for all rows; equal prefixes, and equal (prefix, crop) pairs, are computed once.

    `hidden` float32 [P, width] holds the hidden states of the pairs, `pairs` int [R, 1 + J] the pair of each row and crop,
    `prefix` [R] the slot of each row's prefix.
    """

    def __init__(self, states: PrefixStates, crops: np.ndarray, parent: np.ndarray, last: np.ndarray) -> None:
        (parents, tokens), prefix = np.unique(np.stack([parent, last]), axis=1, return_inverse=True)
        row, column = np.nonzero(crops >= 0)
        keys, pair = np.unique(prefix[row] * states.crops + crops[row, column], return_inverse=True)
        slots, self.hidden = states.advance(parents, tokens, keys // states.crops, keys % states.crops)
        self.prefix: np.ndarray = slots[prefix]
        self.pairs = np.zeros(crops.shape, np.int64)
        self.pairs[row, column] = pair

    def views(self, weights: np.ndarray, own_logit_scale: np.ndarray) -> tuple[Views, np.ndarray]:
        """The distinct views (own crop after a prefix) of the rows, and the index of every row's view."""
        _, first, view = np.unique(self.pairs[:, 0], return_index=True, return_inverse=True)
        return Views(self.pairs[first, 0], self.pairs[first, 1:], weights[first], own_logit_scale[first]), view
