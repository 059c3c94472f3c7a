"""Distinctive caption sampling without the host: the form for a GPU, with the same tokens as `distinctive.sample_captions`.

There the host chooses every token, and the device waits for it. Here shapes are fixed: every row has a prefix and pairs of its own,
finished rows are computed along, and what a step needs (random numbers, position, end flags) is on the device. The host looks
every few steps, for one transfer: which rows are alive, and whether a keep set was larger than what was sorted; then those steps
are done again with everything sorted. Rows that have finished leave once they are half of all.

A step makes no transfer and changes its state in place, so that it can be captured as a CUDA graph (`graphs`, which nobody has
tried on a GPU).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from pseudoris_cli import watching
from pseudoris_cli.decoding.device_steps import BLOCK, EVERY, caches, log_mass, repeatable
from pseudoris_cli.decoding.distinctive import ContrastSet
from pseudoris_cli.decoding.distribution import NOT_FINITE
from pseudoris_cli.decoding.kv_cache import crop_queries
from pseudoris_cli.decoding.network import ROWS, CaptionNetwork, CropQueries, CrossKV, Position, round_up
from pseudoris_cli.decoding.rules import DecodingRules, Generated
from pseudoris_cli.errors import UsageError

RANKED = 256
"""Tokens that are sorted at first; all of them where a keep set is larger."""
_NONE = -1
"""In the table of tokens: the row had finished before."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which pairs R rows have (rows padded with copies of the first, which are never alive), on the device.

    `own` [R] and `others` [R, J] are indices of pairs, `weights` [R, J] and `scale` [R] as in ContrastSet; `prefix` [P] is
    the row of each pair, `slots` [P, 2] on the host its row and column.
    """

    own: torch.Tensor
    others: torch.Tensor
    weights: torch.Tensor
    scale: torch.Tensor
    prefix: torch.Tensor
    queries: CropQueries
    table: np.ndarray

    @classmethod
    def of(cls, contrast: ContrastSet, rows: np.ndarray, device: torch.device) -> Layout:
        """Of these rows of a contrast set."""
        crops = contrast.crops[rows]
        row, column = np.nonzero(crops >= 0)
        table = np.zeros(crops.shape, np.int64)
        table[row, column] = np.arange(len(row))
        count = round_up(len(row), ROWS)
        prefix = np.zeros(count, np.int64)
        prefix[: len(row)] = row
        queries = crop_queries(crops[row, column], np.arange(len(row)), count, device)

        def put(values: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device)

        return cls(
            put(table[:, 0]),
            put(table[:, 1:]),
            put(contrast.weights[rows]),
            put(contrast.own_logit_scale[rows]),
            put(prefix),
            queries,
            np.where(crops >= 0, table, _NONE),
        )


class DeviceSampler:
    """The rows of one chunk in the making; see the module."""

    def __init__(
        self,
        network: CaptionNetwork,
        cross_kv: CrossKV,
        contrast: ContrastSet,
        samplers: np.ndarray,
        rules: DecodingRules,
        uniforms: np.ndarray,
    ) -> None:
        """`samplers` int [R]; `uniforms` float64 [R, at least max_length - 1]."""
        self.network, self.cross_kv, self.contrast, self.rules = network, cross_kv, contrast, rules
        self.length = rules.max_length - 1
        self.real = len(samplers)
        """Rows before the padding."""
        padded = round_up(self.real, ROWS)
        self.rows = np.concatenate([np.arange(self.real), np.zeros(padded - self.real, np.int64)])
        """The row of the chunk that each row here is."""
        device, top_k = network.device, rules.top_k
        ranks = [top_k[s] - 1 if s < len(top_k) else -1 for s in samplers[self.rows]]
        masses = [rules.top_p[s - len(top_k)] if s >= len(top_k) else 2.0 for s in samplers[self.rows]]
        self.rank, self.top_p = (
            torch.tensor(ranks, device=device),
            torch.tensor(masses, dtype=torch.float64, device=device),
        )
        self.uniforms = torch.from_numpy(np.ascontiguousarray(uniforms[self.rows, : self.length])).to(device)
        self.layout = Layout.of(contrast, self.rows, device)
        self.last = torch.full((padded,), rules.start, dtype=torch.int64, device=device)
        self.alive = torch.arange(padded, device=device) < self.real
        self.tokens = torch.full((padded, self.length), _NONE, dtype=torch.int64, device=device)
        self.logprob = torch.zeros(padded, dtype=torch.float64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.told = torch.zeros(2, dtype=torch.bool, device=device)
        """Whether a keep set was larger than what was sorted; whether a logit was not finite."""
        self.text = caches(network, len(network.text_blocks), padded, network.text_heads, self.length)
        self.pairs = caches(network, len(network.decoder_blocks), len(self.layout.prefix), network.heads, self.length)

    def step(self, ranked: int) -> None:
        """One more token for every row; `ranked` tokens are sorted. No transfer, state in place."""
        hidden = self._hidden()
        chosen = [
            self._choose(hidden, slice(start, start + BLOCK), ranked) for start in range(0, len(self.last), BLOCK)
        ]
        token, logprob = (torch.cat(parts) for parts in zip(*chosen, strict=True))
        self._append(token, logprob)

    def finish(self) -> None:
        """The end for every row that is alive, without sampling."""
        hidden, end = self._hidden(), self.rules.end
        parts = []
        for start in range(0, len(self.last), BLOCK):
            logits = self.network.logits(hidden[self.layout.own[start : start + BLOCK]])
            parts.append(logits[:, end].double() - log_mass(logits))
        self._append(torch.full_like(self.last, end), torch.cat(parts))

    def _hidden(self) -> torch.Tensor:
        """Hidden states [P, width] after the last token."""
        at = Position.of(self.position, self.length)
        text = self.network.text_step(self.last, self.text, at)
        return self.network.decoder_step(text[self.layout.prefix], self.pairs, at, self.cross_kv, self.layout.queries)

    def _append(self, token: torch.Tensor, logprob: torch.Tensor) -> None:
        rules = self.rules
        self.tokens.index_copy_(1, self.position, torch.where(self.alive, token, _NONE)[:, None])
        self.logprob.add_(torch.where(self.alive, logprob, 0.0))
        self.last.copy_(token)
        self.alive.logical_and_(token != rules.end)
        if rules.pad_ends_row:
            self.alive.logical_and_(token != rules.pad)
        self.position.add_(1)

    def _choose(self, hidden: torch.Tensor, part: slice, ranked: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and log-probabilities of some rows: steps 2 to 5 of the method, as `distribution` and `sampling.draw` do them."""
        layout, rules = self.layout, self.rules
        own, other = self._logits(hidden, part)
        total = log_mass(own)
        early = self.position + 1 < rules.min_length
        own[:, rules.end] = torch.where(early, -torch.inf, own[:, rules.end])
        mass = (own - own.amax(1, keepdim=True)).exp_().sum(1).double()
        ranked = min(ranked, own.shape[1])
        values, index = own.topk(ranked, dim=1)
        values = values.double()
        threshold = self._thresholds(values, mass, part, own.shape[1])
        index, order = index.sort(1)  # candidates by ascending token id
        values = values.gather(1, order)
        kept = values >= threshold[:, None]
        contrasted = values
        if other is not None:
            contrasted = layout.scale[part, None] * values - other.gather(1, index).double()
        weight = torch.where(index == rules.end, _softmax(values, kept), _softmax(contrasted, kept))
        cumulative = weight.cumsum(1)
        numbers = self.uniforms[part].index_select(1, self.position)
        entry = (cumulative <= numbers * cumulative[:, -1:]).sum(1)
        last_kept = ranked - 1 - kept.flip(1).int().argmax(1)
        entry = torch.minimum(entry, last_kept)[:, None]
        finite = (total.isfinite() | ~self.alive[part]).all()
        self.told[1].logical_or_(~finite)
        return index.gather(1, entry)[:, 0], values.gather(1, entry)[:, 0] - total

    def _logits(self, hidden: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
        layout = self.layout
        own = self.network.logits(hidden[layout.own[part]])
        others, weights = layout.others[part], layout.weights[part]
        if not others.shape[1]:
            return own, None
        mean = torch.zeros(len(others), hidden.shape[1], device=hidden.device)
        for column in range(others.shape[1]):
            mean = mean + weights[:, column, None] * hidden[others[:, column]]
        return own, self.network.logits(mean)

    def _thresholds(self, values: torch.Tensor, mass: torch.Tensor, part: slice, vocabulary: int) -> torch.Tensor:
        """The smallest own logit that each row keeps (see distribution.keep_thresholds), float64; notes sets that are larger."""
        ranked = values.shape[1]
        below = ((values - values[:, :1]).exp() / mass[:, None]).cumsum(1)
        rank, top_p = self.rank[part], self.top_p[part]
        by_mass = (below < top_p[:, None]).sum(1).clamp(max=ranked - 1)
        place = torch.where(rank >= 0, rank.clamp(max=ranked - 1), by_mass)
        threshold = values.gather(1, place[:, None])[:, 0]
        if ranked < vocabulary:
            larger = ((rank < 0) & (below[:, -1] < top_p)) | (values[:, -1] >= threshold)
            self.told[0].logical_or_((larger & self.alive[part]).any())
        return threshold

    def snapshot(self) -> tuple[torch.Tensor, ...]:
        """The state that a repetition of steps begins with; caches and tokens are written over."""
        return tuple(state.clone() for state in (self.last, self.alive, self.logprob, self.position, self.told))

    def restore(self, before: tuple[torch.Tensor, ...]) -> None:
        """Go back to a snapshot."""
        for state, then in zip((self.last, self.alive, self.logprob, self.position, self.told), before, strict=True):
            state.copy_(then)

    def look(self) -> tuple[np.ndarray, bool]:
        """Which rows are alive, and whether a keep set was larger than what was sorted: one transfer. UsageError for no number."""
        found = torch.cat([self.alive, self.told]).cpu().numpy()
        if found[-1]:
            raise UsageError(NOT_FINITE)
        return found[:-2], bool(found[-2])

    def compact(self, alive: np.ndarray) -> None:
        """Keep only the rows that are alive."""
        kept = np.flatnonzero(alive)
        self.real = len(kept)
        padded = round_up(len(kept), ROWS)
        places = np.concatenate([kept, np.full(padded - len(kept), kept[0])])
        self.rows = self.rows[places]
        before, device = self.layout.table, self.network.device
        self.layout = Layout.of(self.contrast, self.rows, device)
        old = before[places]
        pairs = np.zeros(len(self.layout.prefix), np.int64)
        pairs[: int((old >= 0).sum())] = old[old >= 0]
        place, pair = torch.from_numpy(places).to(device), torch.from_numpy(pairs).to(device)
        self.text, self.pairs = self.text[:, :, place], self.pairs[:, :, pair]
        for name in ("rank", "top_p", "uniforms", "last", "tokens", "logprob"):
            setattr(self, name, getattr(self, name)[place])
        self.alive = torch.arange(padded, device=device) < len(kept)

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens [R, length], -1 after the end, and log-probabilities [R] of the rows that are here, padding included."""
        return self.tokens.cpu().numpy(), self.logprob.cpu().numpy()


def sample_on_device(sampler: DeviceSampler, graphs: bool = False) -> list[Generated]:
    """The caption of every row of a chunk, as `sample_captions` with `sampling.draw` gives it."""
    rows, rules = sampler.real, sampler.rules
    found: dict[int, Generated] = {}

    def collect(finished: np.ndarray) -> None:
        tokens, logprob = sampler.results()
        for place in np.flatnonzero(finished[: sampler.real]):
            row = tokens[place]
            found[int(sampler.rows[place])] = Generated(tuple(row[row != _NONE].tolist()), float(logprob[place]))

    step, done = repeatable(sampler.step, sampler.network.device, graphs), 0
    ranked = max((RANKED, *rules.top_k))
    while done < sampler.length - 1:
        watching.tell(done / sampler.length)
        count, before = min(EVERY, sampler.length - 1 - done), sampler.snapshot()
        for _ in range(count):
            step(ranked)
        alive, larger = sampler.look()
        if larger:
            sampler.restore(before)
            for _ in range(count):
                sampler.step(1 << 30)
            alive, _ = sampler.look()
        done += count
        if not alive.any():
            break
        if 2 * alive.sum() <= len(alive) and len(alive) > ROWS:
            collect(~alive)
            sampler.compact(alive)
            step = repeatable(sampler.step, sampler.network.device, graphs)
    else:
        sampler.finish()
    collect(np.ones(len(sampler.rows), bool))
    return [found[row] for row in range(rows)]


def _softmax(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Softmax over what is kept of each row; 0 elsewhere."""
    shifted = values.masked_fill(~kept, -torch.inf)
    exponential = (shifted - shifted.amax(1, keepdim=True)).exp()
    return exponential / exponential.sum(1, keepdim=True)
