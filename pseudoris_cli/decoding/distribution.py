"""The distribution of the next token: top-k and top-p filtering, and the contrast with the other masks of an image.

Logits are computed on the device, a block of views at a time; only tokens that some sampler keeps are transferred to the
host, where probabilities are computed in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pseudoris_cli.decoding.network import CaptionNetwork
from pseudoris_cli.decoding.rules import DecodingRules
from pseudoris_cli.errors import UsageError

NOT_FINITE = "the captioner's logits are not finite: use numerics.precision bf16 or fp32, or check its weights"
_BLOCK = 256
"""Views whose logits are in memory at one time."""
_RANKED = 128
"""Tokens that are sorted at first; all of them are where a top-p set is larger."""


@dataclass(frozen=True, slots=True)
class Views:
    """U distinct views: a crop after a prefix, contrasted with up to J other crops after the same prefix.

    `own` [U] and `others` [U, J] are row indices of the hidden states; `weights` [U, J] is the factor of the other's
    logits, contrast * similarity / (masks - 1), 0 where there is none; `own_logit_scale` [U] is that of the own logits.
    """

    own: np.ndarray
    others: np.ndarray
    weights: np.ndarray
    own_logit_scale: np.ndarray


@dataclass(frozen=True, slots=True)
class KeptTokens:
    """The tokens that R rows may take next, as a CSR: row r has entries `start[r]` to `start[r + 1]`, token ids ascending.

    `weight` is the probability before normalisation, `logprob` the log-softmax of the own logits before any rule.
    """

    start: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    logprob: np.ndarray


@dataclass(frozen=True, slots=True)
class _Candidates:
    """The tokens of each view that some row keeps (`count` per view), with own and contrasted logits and log-probability."""

    count: np.ndarray
    token: np.ndarray
    own: np.ndarray
    contrasted: np.ndarray
    logprob: np.ndarray


def next_tokens(
    network: CaptionNetwork, rules: DecodingRules, hidden: torch.Tensor, views: Views, rows: np.ndarray, length: int
) -> KeptTokens:
    """Steps 2 to 5 of distinctive caption sampling after prefixes of `length` tokens (Pseudo-RIS §3.2).

    `hidden` float32 [P, width]; `rows` [2, R] holds the indices of the view and of the sampler (top-k first) of every row.
    Raises UsageError where the logits are not finite.
    """
    view, sampler = rows
    thresholds = np.empty(len(view))
    blocks = []
    for start in range(0, len(views.own), _BLOCK):
        own, other = _logits(network, hidden, views, slice(start, start + _BLOCK))
        top, mass = peak_and_mass(own)
        totals = top + np.log(mass)
        if not np.isfinite(totals).all():
            raise UsageError(NOT_FINITE)
        if length < rules.min_length:
            own[:, rules.end] = -torch.inf
            top, mass = peak_and_mass(own)
        in_block = np.flatnonzero((view >= start) & (view < start + _BLOCK))
        thresholds[in_block] = keep_thresholds(own, mass, (view[in_block] - start, sampler[in_block]), rules)
        lowest = np.full(len(own), np.inf)
        np.minimum.at(lowest, view[in_block] - start, thresholds[in_block])
        blocks.append(_candidates(own, other, lowest, totals, views.own_logit_scale[start : start + _BLOCK]))
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

    The projection to the vocabulary is linear without a bias, so the others' hidden states are summed before it.
    """
    own = network.logits(hidden[torch.from_numpy(views.own[part]).to(hidden.device)])
    if views.others.shape[1] == 0:
        return own, None
    others = torch.from_numpy(views.others[part]).to(hidden.device)
    weights = torch.from_numpy(views.weights[part]).to(hidden.device)
    mean = torch.zeros(len(others), hidden.shape[1], device=hidden.device)
    for column in range(others.shape[1]):
        mean = mean + weights[:, column, None] * hidden[others[:, column]]
    return own, network.logits(mean)


def peak_and_mass(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The maximum m of each row of logits [N, V] and the sum of exp(logit - m): float64 [N] each."""
    top = logits.amax(1, keepdim=True)
    mass = (logits - top).exp_().sum(1)
    return top[:, 0].cpu().numpy().astype(np.float64), mass.cpu().numpy().astype(np.float64)


def keep_thresholds(
    own: torch.Tensor, mass: np.ndarray, rows: tuple[np.ndarray, np.ndarray], rules: DecodingRules
) -> np.ndarray:
    """The smallest own logit that each row (view, sampler) keeps, float64 [R]; ties with it are kept.

    Top-k: the k-th largest. Top-p: a token stays while the tokens above it have a total probability below p.
    """
    view, sampler = rows
    vocabulary = own.shape[1]
    values = own.topk(min(vocabulary, max((_RANKED, *rules.top_k))), dim=1).values.cpu().numpy().astype(np.float64)
    below = np.cumsum(np.exp(values - values[:, :1]) / mass[:, None], axis=1)
    thresholds = np.empty(len(view))
    everything: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for row, (u, s) in enumerate(zip(view, sampler, strict=True)):
        if s < len(rules.top_k):
            thresholds[row] = values[u, min(rules.top_k[s], vocabulary) - 1]
            continue
        top_p = rules.top_p[s - len(rules.top_k)]
        ordered, cumulative = values[u], below[u]
        if cumulative[-1] < top_p and len(cumulative) < vocabulary:
            if u not in everything:
                everything[u] = _rank_all(own[u], mass[u])
            ordered, cumulative = everything[u]
        thresholds[row] = ordered[min(int(np.searchsorted(cumulative, top_p)), len(cumulative) - 1)]
    return thresholds


def _rank_all(own: torch.Tensor, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """All logits in descending order, and the cumulative probability up to each."""
    values = own.sort(descending=True).values.cpu().numpy().astype(np.float64)
    return values, np.cumsum(np.exp(values - values[0]) / mass)


def _candidates(
    own: torch.Tensor, other: torch.Tensor | None, lowest: np.ndarray, totals: np.ndarray, own_logit_scale: np.ndarray
) -> _Candidates:
    """Transfer to the host the tokens at or above each view's lowest threshold."""
    keep = own >= torch.from_numpy(lowest.astype(np.float32)).to(own.device)[:, None]
    kept = keep.nonzero(as_tuple=True)
    view, token = (index.cpu().numpy() for index in kept)
    values = own[kept].cpu().numpy().astype(np.float64)
    contrasted = values
    if other is not None:
        contrasted = own_logit_scale[view] * values - other[kept].cpu().numpy()
    return _Candidates(np.bincount(view, minlength=len(own)), token, values, contrasted, values - totals[view])


def _weigh(found: _Candidates, view: np.ndarray, thresholds: np.ndarray, end: int) -> KeptTokens:
    """Softmax over the candidates that each row keeps of its view; the end token's weight is that of the own logits."""
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
    return KeptTokens(start, token, weight, found.logprob[entry])


def _softmax(values: np.ndarray, row: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Softmax within each row of a CSR; no row is empty."""
    exponential = np.exp(values - np.maximum.reduceat(values, start[:-1])[row])
    return exponential / np.add.reduceat(exponential, start[:-1])[row]
