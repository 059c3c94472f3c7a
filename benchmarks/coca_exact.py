"""The recorded network in float64: the judge of what rounding may decide."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pseudoris_cli.decoding.distribution import KeptTokens
from pseudoris_cli.decoding.rules import DecodingRules

LOGIT = 1e-4
"""Largest difference of contrasted logits: twice 5.2e-5, as both sides round. Logits go up to 60 and beyond."""
MASS = LOGIT / 2
"""What such a difference moves a cumulative probability by at most: 2 e C (1 - C), C = 1/2."""


@dataclass(frozen=True)
class Step:
    """Rows after prefixes of `length` tokens: own logits [R, V] before any rule, their log-softmax, and the rows' numbers."""

    rows: np.ndarray
    length: int
    own: torch.Tensor
    logprob: torch.Tensor


class Exact:
    """Rows `tokens` [R, T] (the start included) of crops `crop` [R], by open_clip's own modules on whole sequences."""

    def __init__(
        self, coca: Any, images: torch.Tensor, rules: DecodingRules, tokens: np.ndarray, crop: np.ndarray
    ) -> None:
        coca = deepcopy(coca).double()
        self.rules, masks = rules, len(images)
        self.projection = coca.text_decoder.text_projection.detach()
        coca.text_decoder.text_projection = None  # so that the decoder returns hidden states
        latents, image_tokens = coca.visual(images.double())
        latents = torch.nn.functional.normalize(latents, dim=-1)
        similarity = latents @ latents.T
        self.tokens, self.crop = tokens, torch.from_numpy(crop)
        text = coca.text(torch.from_numpy(tokens[:, :-1].astype(np.int64)))[1]
        beside = masks if rules.contrasts(masks) else 1
        self.mean = torch.zeros(())
        for step in range(beside):
            other = (self.crop + step) % masks
            hidden = coca.text_decoder(image_tokens[other], text)
            if step == 0:
                self.own, self.mean = hidden, torch.zeros_like(hidden)
            else:
                self.mean += (similarity[self.crop, other] / (beside - 1))[:, None, None] * hidden

    def step(self, rows: np.ndarray, length: int) -> Step:
        own = self.own[rows, length - 1] @ self.projection
        return Step(rows, length, own, own.log_softmax(1))

    def weights(self, step: Step, kept: KeptTokens) -> np.ndarray:
        """The weight of every kept entry of the step's rows."""
        owner = _owner(kept)
        own = step.own[owner, kept.token].numpy()
        others = (self.mean[step.rows[owner], step.length - 1] * self.projection[:, kept.token].T).sum(1).numpy()
        weights = _softmax(own - others, owner, kept.start)
        end = kept.token == self.rules.end
        weights[end] = _softmax(own, owner, kept.start)[end]
        return weights

    def keep_sets(self, step: Step, samplers: np.ndarray, most: int) -> list[tuple[set[int], set[int]]]:
        """For each row the tokens that its sampler (top-k first) keeps whatever is rounded, and those that hang on rounding.

        A token hangs where its logit is less than LOGIT from that of a token on the other side of the k-th rank, or the mass
        above it less than MASS from p. The `most` largest logits are looked at first, all where they don't suffice.
        """
        own = step.own.clone()
        if step.length < self.rules.min_length:
            own[:, self.rules.end] = -torch.inf
        vocabulary = own.shape[1]
        ranked = own.topk(min(most, vocabulary), dim=1)
        total = own.logsumexp(1)
        sets = []
        for row, sampler in enumerate(samplers.tolist()):
            found = self._keep_set(ranked.values[row], ranked.indices[row], total[row], sampler)
            if found is None:
                values, indices = own[row].sort(descending=True)
                found = self._keep_set(values, indices, total[row], sampler, whole=True)
            assert found is not None
            sets.append(found)
        return sets

    def _keep_set(
        self, values: torch.Tensor, tokens: torch.Tensor, total: torch.Tensor, sampler: int, whole: bool = False
    ) -> tuple[set[int], set[int]] | None:
        """As above for one row, from its largest logits; None where they don't reach to the last that may hang."""
        logits, rules = values.numpy(), self.rules
        if sampler < len(rules.top_k):
            least = most = rules.top_k[sampler]
        else:
            share = rules.top_p[sampler - len(rules.top_k)]
            probability = np.exp(logits - float(total))
            above = np.cumsum(probability) - probability
            least, most = max(1, int((above < share - MASS).sum())), int((above < share + MASS).sum())
        if not whole and (most >= len(logits) or logits[most - 1] - logits[-1] <= LOGIT):
            return None
        rank = np.arange(len(logits))
        may_go = (rank < most) & (logits <= logits[min(least, len(logits) - 1)] + LOGIT)
        may_come = (rank >= least) & (logits >= logits[most - 1] - LOGIT)
        hanging = (may_go & (least < len(logits))) | may_come
        names = tokens.numpy()
        return set(names[(rank < most) & ~hanging].tolist()), set(names[hanging].tolist())

    def caption_logprobs(self) -> np.ndarray:
        """Sum of the log-softmax of the own logits over the tokens of every row, up to its end (or pad, where that ends it)."""
        sums = np.zeros(len(self.tokens))
        going = np.ones(len(self.tokens), bool)
        for length in range(1, self.tokens.shape[1]):
            rows = np.flatnonzero(going)
            if len(rows) == 0:
                break
            token = self.tokens[rows, length]
            sums[rows] += self.step(rows, length).logprob[np.arange(len(rows)), token].numpy()
            going[rows] = (token != self.rules.end) & ~((token == self.rules.pad) & self.rules.pad_ends_row)
        return sums


def _owner(kept: KeptTokens) -> np.ndarray:
    return np.repeat(np.arange(len(kept.start) - 1), np.diff(kept.start))


def _softmax(values: np.ndarray, row: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Softmax within each row of a CSR."""
    exponential = np.exp(values - np.maximum.reduceat(values, start[:-1])[row])
    return exponential / np.add.reduceat(exponential, start[:-1])[row]
