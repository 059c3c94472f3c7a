"""The distribution of the next token: keep sets of top-k and top-p, and the contrast against the other masks of an image.

Logits are made on the device, a block of views at a time; only tokens that some sampler keeps come to the host, where
probabilities are taken in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import Rules
from pseudoris_cli.errors import UsageError

_BLOCK = 256
"""Views whose logits exist at one time."""
_RANKED = 128
"""Tokens that are ranked at first; a top-p set that is larger asks for all."""


@dataclass(frozen=True, slots=True)
class Views:
    """What is seen of U crops after a prefix: places in the hidden states.

    `own` [U] is the crop's own state; `others` and `weights` [U, J] are the states that it is contrasted with and
    strength * similarity / (masks - 1), 0 where there is none. `gain` [U] is what the own logits are multiplied by.
    """

    own: np.ndarray
    others: np.ndarray
    weights: np.ndarray
    gain: np.ndarray


@dataclass(frozen=True, slots=True)
class Kept:
    """Next-token weights of R rows over the tokens they keep: CSR, token ids rising within a row.

    `weight` is the probability of DCS before it is normalised, `logprob` log-softmax of the own logits before any rule.
    """

    start: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    logprob: np.ndarray


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Tokens that some row of a view keeps, with own logits, contrasted logits and log-probability."""

    count: np.ndarray
    token: np.ndarray
    own: np.ndarray
    contrasted: np.ndarray
    logprob: np.ndarray


def next_tokens(
    network: CaptionNetwork, rules: Rules, hidden: torch.Tensor, views: Views, rows: np.ndarray, length: int
) -> Kept:
    """Steps 2 to 5 of distinctive caption sampling after prefixes of `length` tokens (Pseudo-RIS §3.2).

    `hidden` float32 [P, width]; `rows` [2, R] holds the view and the sampler (top-k samplers first) of every row.
    """
    view, sampler = rows
    thresholds = np.empty(len(view))
    blocks = []
    for start in range(0, len(views.own), _BLOCK):
        own, other = _logits(network, hidden, views, slice(start, start + _BLOCK))
        top, mass = peak_and_mass(own)
        totals = top + np.log(mass)
        if not np.isfinite(totals).all():
            raise UsageError(
                "the captioner's logits are not finite: use numerics.precision bf16 or fp32, or check its weights"
            )
        if length < rules.min_length:
            own[:, rules.end] = -torch.inf
            top, mass = peak_and_mass(own)
        here = np.flatnonzero((view >= start) & (view < start + _BLOCK))
        thresholds[here] = keep_thresholds(own, mass, (view[here] - start, sampler[here]), rules)
        lowest = np.full(len(own), np.inf)
        np.minimum.at(lowest, view[here] - start, thresholds[here])
        blocks.append(_candidates(own, other, lowest, totals, views.gain[start : start + _BLOCK]))
    names = ("count", "token", "own", "contrasted", "logprob")
    merged = _Candidates(*(np.concatenate([getattr(block, name) for block in blocks]) for name in names))
    return _weigh(merged, view, thresholds, rules.end)


def own_logprobs(network: CaptionNetwork, hidden: torch.Tensor, token: int) -> np.ndarray:
    """Log-softmax at one token for each hidden state [N, width]: float64 [N]."""
    parts = []
    for start in range(0, len(hidden), _BLOCK):
        logits = network.logits(hidden[start : start + _BLOCK])
        top, mass = peak_and_mass(logits)
        parts.append(logits[:, token].cpu().numpy() - top - np.log(mass))
    return np.concatenate(parts)


def _logits(
    network: CaptionNetwork, hidden: torch.Tensor, views: Views, part: slice
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Own logits and the weighted sum of the others' [U, vocabulary]; None where nothing is contrasted.

    The others' hidden states are summed before the one projection: it is linear and has no bias.
    """
    own = network.logits(hidden[torch.from_numpy(views.own[part]).to(hidden.device)])
    if views.others.shape[1] == 0:
        return own, None
    others = torch.from_numpy(views.others[part]).to(hidden.device)
    weights = torch.from_numpy(views.weights[part]).to(hidden.device)
    mean = torch.zeros(len(others), hidden.shape[1], device=hidden.device)
    for place in range(others.shape[1]):
        mean = mean + weights[:, place, None] * hidden[others[:, place]]
    return own, network.logits(mean)


def peak_and_mass(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The largest of each row of logits [N, V], and the sum of exp(logit - largest): float64 [N] each."""
    top = logits.amax(1, keepdim=True)
    mass = (logits - top).exp_().sum(1)
    return top[:, 0].cpu().numpy().astype(np.float64), mass.cpu().numpy().astype(np.float64)


def keep_thresholds(
    own: torch.Tensor, mass: np.ndarray, rows: tuple[np.ndarray, np.ndarray], rules: Rules
) -> np.ndarray:
    """The smallest own logit that each row (view, sampler) keeps, float64 [R]; ties with it are kept.

    Top-k: the k-th largest. Top-p: a token stays while those above it hold less than p; the largest always stays.
    """
    view, sampler = rows
    vocabulary = own.shape[1]
    values = own.topk(min(vocabulary, max(_RANKED, *rules.top_k)), dim=1).values.cpu().numpy().astype(np.float64)
    below = np.cumsum(np.exp(values - values[:, :1]) / mass[:, None], axis=1)
    thresholds = np.empty(len(view))
    everything: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for row, (u, s) in enumerate(zip(view, sampler, strict=True)):
        if s < len(rules.top_k):
            thresholds[row] = values[u, min(rules.top_k[s], vocabulary) - 1]
            continue
        share = rules.top_p[s - len(rules.top_k)]
        ordered, held = values[u], below[u]
        if held[-1] < share and len(held) < vocabulary:
            if u not in everything:
                everything[u] = _rank_all(own[u], mass[u])
            ordered, held = everything[u]
        thresholds[row] = ordered[min(int(np.searchsorted(held, share)), len(held) - 1)]
    return thresholds


def _rank_all(own: torch.Tensor, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """All logits from the largest, and the probability that each holds together with those above it."""
    values = own.sort(descending=True).values.cpu().numpy().astype(np.float64)
    return values, np.cumsum(np.exp(values - values[0]) / mass)


def _candidates(
    own: torch.Tensor, other: torch.Tensor | None, lowest: np.ndarray, totals: np.ndarray, gain: np.ndarray
) -> _Candidates:
    """Bring to the host what lies at or above each view's lowest threshold."""
    keep = own >= torch.from_numpy(lowest.astype(np.float32)).to(own.device)[:, None]
    at = keep.nonzero(as_tuple=True)
    view, token = (index.cpu().numpy() for index in at)
    values = own[at].cpu().numpy().astype(np.float64)
    contrasted = values
    if other is not None:
        contrasted = gain[view] * values - other[at].cpu().numpy()
    return _Candidates(np.bincount(view, minlength=len(own)), token, values, contrasted, values - totals[view])


def _weigh(found: _Candidates, view: np.ndarray, thresholds: np.ndarray, end: int) -> Kept:
    """Hand each row the candidates of its view that it keeps; softmax them, the end token by the own logits alone."""
    count, first = found.count[view], (np.cumsum(found.count) - found.count)[view]
    row = np.repeat(np.arange(len(view)), count)
    entry = np.arange(len(row)) - (np.cumsum(count) - count)[row] + first[row]
    kept = found.own[entry] >= thresholds[row]
    row, entry = row[kept], entry[kept]
    start = np.searchsorted(row, np.arange(len(view) + 1))
    token = found.token[entry]
    weight = _softmax(found.contrasted[entry], row, start)
    ends = token == end
    weight[ends] = _softmax(found.own[entry], row, start)[ends]
    return Kept(start, token, weight, found.logprob[entry])


def _softmax(values: np.ndarray, row: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Softmax within each row of a CSR; no row is empty."""
    exponential = np.exp(values - np.maximum.reduceat(values, start[:-1])[row])
    return exponential / np.add.reduceat(exponential, start[:-1])[row]
