"""Beam search without the host: the form for a GPU, with the same captions as `beam.search_captions`.

Shapes are fixed: every beam of every crop is a row with a prefix and caches of its own, which move with the beams at each step. A
step waits for nothing and changes its state in place; the host looks every few steps which searches are done, with one transfer.
Searches that are done are computed along, without effect, until they are half of all.

The list of finished sequences is a table of `width` places: an empty one has the score -inf, and `order` says when a sequence was
put there, which decides between equal ones as the order of the host's list does.
"""

from __future__ import annotations

import numpy as np
import torch

from pseudoris_cli import watching
from pseudoris_cli.decoding.beam import NEVER, Beam, Search
from pseudoris_cli.decoding.device_steps import BLOCK, EVERY, caches, log_mass, repeatable
from pseudoris_cli.decoding.kv_cache import crop_queries
from pseudoris_cli.decoding.network import ROWS, CaptionNetwork, CrossKV, Position, round_up
from pseudoris_cli.decoding.rules import DecodingRules, Generated

_LATER = 1 << 40
"""Later than any sequence was finished."""
_BY_ROW = ("last", "tokens", "score", "logprob")
_BY_CROP = ("done", "ended_score", "ended_order", "ended_tokens", "ended_length", "ended_logprob")


class DeviceBeams:
    """The searches of some crops in the making; see the module. The vocabulary has more than 2 x width tokens."""

    def __init__(
        self, network: CaptionNetwork, cross_kv: CrossKV, crops: np.ndarray, width: int, rules: DecodingRules
    ) -> None:
        """`crops` int [C] are those of `cross_kv`."""
        self.network, self.cross_kv, self.crops, self.width, self.rules = network, cross_kv, crops, width, rules
        self.length = rules.max_length - 1
        count, device = len(crops), network.device
        rows = round_up(count * width, ROWS)
        self.last = torch.full((rows,), rules.start, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(rows, self.length, dtype=torch.int64, device=device)
        first = torch.arange(rows, device=device) % width == 0
        self.score = torch.zeros(rows, device=device).masked_fill_(~first, float(NEVER))
        self.logprob = torch.zeros(rows, dtype=torch.float64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self.done = torch.zeros(count, dtype=torch.bool, device=device)
        empty = torch.arange(width, device=device).expand(count, -1)
        self.ended_score = torch.full_like(empty, -torch.inf, dtype=torch.float64)
        self.ended_order = empty - width
        self.ended_tokens = torch.zeros(count, width, self.length, dtype=torch.int64, device=device)
        self.ended_length = torch.zeros_like(empty)
        self.ended_logprob = torch.zeros_like(self.ended_score)
        self.text = caches(network, len(network.text_blocks), rows, network.text_heads, self.length)
        self.pairs = caches(network, len(network.decoder_blocks), rows, network.heads, self.length)
        self._lay_out()

    def _lay_out(self) -> None:
        """What follows from the crops that are here, on the device."""
        rows, device = len(self.last), self.network.device
        real = len(self.crops) * self.width
        self.queries = crop_queries(np.repeat(self.crops, self.width), np.arange(real), rows, device)
        self.own = torch.arange(rows, device=device)
        self.first = self.own[:real].view(-1, self.width)[:, :1]
        """The first row of each crop [C, 1]."""

    def step(self) -> None:
        """One more token for every beam. No transfer, state in place."""
        ranked, (score, token, logprob, beam) = 2 * self.width, self._continuations()
        length = (self.position + 1).double()
        ended = token == self.rules.end
        grown = self.tokens[self.first + beam]  # [C, 2 x width, length]
        grown = grown.index_copy(2, self.position, token[..., None])
        for rank in range(self.width):
            self._finish(ended[:, rank], score[:, rank].double() / length, grown[:, rank], logprob[:, rank], rank)
        ranks = torch.arange(ranked, device=score.device)
        going = ranks.where(~ended, ranked).sort(1).values[:, : self.width]
        self._move(self.first + beam.gather(1, going))
        for state, values in ((self.last, token), (self.score, score), (self.logprob, logprob)):
            state[: self.first.numel() * self.width] = values.gather(1, going).flatten()
        chosen = grown.gather(1, going[..., None].expand(-1, -1, self.length))
        self.tokens[: self.first.numel() * self.width] = chosen.flatten(0, 1)
        self.done.logical_or_(self.ended_score.amin(1) >= score[:, 0].double() / length)
        self.position.add_(1)

    def _continuations(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The 2 x width best continuations of each search [C, 2 x width], best first: score, token, log-probability, beam."""
        at, most = Position.of(self.position, self.length), 2 * self.width
        text = self.network.text_step(self.last, self.text, at)
        hidden = self.network.decoder_step(text, self.pairs, at, self.cross_kv, self.queries)
        found = []
        for start in range(0, self.first.numel() * self.width, BLOCK):
            part = slice(start, min(start + BLOCK, self.first.numel() * self.width))
            logits = self.network.logits(hidden[part])
            total, end = log_mass(logits), self.rules.end
            logits[:, end] = torch.where(self.position + 1 < self.rules.min_length, -torch.inf, logits[:, end])
            values, index = logits.topk(most, dim=1)
            logprob = self.logprob[part, None] + (values.double() - total[:, None])
            found.append((values + self.score[part, None], index, logprob))
        score, token, logprob = (torch.cat(parts).view(-1, self.width * most) for parts in zip(*found, strict=True))
        score, order = score.sort(dim=1, descending=True, stable=True)
        order = order[:, :most]
        beam = order.div(most, rounding_mode="floor")
        return score[:, :most], token.gather(1, order), logprob.gather(1, order), beam

    def _finish(
        self, ended: torch.Tensor, score: torch.Tensor, tokens: torch.Tensor, logprob: torch.Tensor, rank: int
    ) -> None:
        """Put what ended at this rank into the table where it is better than the worst there, of equal ones the earliest."""
        worst = self.ended_score.amin(1, keepdim=True)
        place = self.ended_order.where(self.ended_score == worst, _LATER).argmin(1, keepdim=True)
        here = torch.arange(self.width, device=place.device) == place
        hit = here & (ended & ~self.done)[:, None] & (score[:, None] > worst)
        self.ended_score.copy_(torch.where(hit, score[:, None], self.ended_score))
        self.ended_order.copy_(torch.where(hit, self.position * self.width + rank, self.ended_order))
        self.ended_tokens.copy_(torch.where(hit[..., None], tokens[:, None], self.ended_tokens))
        self.ended_length.copy_(torch.where(hit, self.position + 1, self.ended_length))
        self.ended_logprob.copy_(torch.where(hit, logprob[:, None], self.ended_logprob))

    def _move(self, parents: torch.Tensor) -> None:
        """Give each row the caches of its parent's row [C, width], layer by layer to keep the intermediate small."""
        rows = torch.cat([parents.flatten(), self.own[parents.numel() :]])
        for cache in (*self.text, *self.pairs):
            cache.copy_(cache.index_select(1, rows))

    def look(self) -> np.ndarray:
        """Which searches are done: one transfer."""
        done: np.ndarray = self.done.cpu().numpy()
        return done

    def compact(self, kept: np.ndarray) -> None:
        """Keep only these searches, by position."""
        device = self.network.device
        rows = (kept[:, None] * self.width + np.arange(self.width)).ravel()
        padded = np.concatenate([rows, np.full(round_up(len(rows), ROWS) - len(rows), rows[0])])
        row, crop = torch.from_numpy(padded).to(device), torch.from_numpy(kept).to(device)
        for names, index in ((_BY_ROW, row), (_BY_CROP, crop)):
            for name in names:
                setattr(self, name, getattr(self, name)[index])
        self.text, self.pairs = self.text[:, :, row], self.pairs[:, :, row]
        self.crops = self.crops[kept]
        self._lay_out()

    def results(self) -> list[Generated]:
        """The caption of every search that is here, should it stop now: one transfer."""
        states = [getattr(self, name) for name in (*_BY_ROW[1:], *_BY_CROP)]
        shapes = [state.shape for state in states]
        exact = [state.double() if state.is_floating_point() else state.long() for state in states]
        packed = torch.cat([state.view(torch.int64).flatten() for state in exact]).cpu()
        parts = packed.split([shape.numel() for shape in shapes])
        tokens, score, logprob, done, *ended = (
            (part.view(torch.float64) if state.is_floating_point() else part).view(shape).numpy()
            for part, state, shape in zip(parts, states, shapes, strict=True)
        )
        rows = [
            Beam(tuple(t), np.float32(s), float(p), 0) for t, s, p in zip(tokens.tolist(), score, logprob, strict=True)
        ]
        return [
            Search(self.width, rows[n * self.width : (n + 1) * self.width], self._list(ended, n), bool(done[n])).result(
                self.rules.max_length
            )
            for n in range(len(self.crops))
        ]

    def _list(self, ended: list[np.ndarray], number: int) -> list[tuple[float, Generated]]:
        """The finished sequences of a search in the order in which they were finished."""
        score, order, tokens, length, logprob = (values[number] for values in ended)
        return [
            (float(score[place]), Generated(tuple(tokens[place, : length[place]].tolist()), float(logprob[place])))
            for place in np.argsort(order)
            if score[place] > -np.inf
        ]


def search_on_device(
    network: CaptionNetwork,
    cross_kv: CrossKV,
    crops: range,
    width: int,
    rules: DecodingRules,
    graphs: bool = False,
) -> list[Generated]:
    """The best caption of every crop, as `search_captions` gives it."""
    beams = DeviceBeams(network, cross_kv, np.array(crops), width, rules)
    found: dict[int, Generated] = {}
    step, made = repeatable(beams.step, network.device, graphs), 0
    while made < beams.length:
        watching.tell(made / beams.length)
        count = min(EVERY, beams.length - made)
        for _ in range(count):
            step()
        made += count
        if made == beams.length:
            break
        done = beams.look()
        if done.all():
            break
        if 2 * done.sum() >= len(done) and len(beams.last) > ROWS:
            found |= {
                int(crop): one for crop, one, ended in zip(beams.crops, beams.results(), done, strict=True) if ended
            }
            beams.compact(np.flatnonzero(~done))
            step = repeatable(beams.step, network.device, graphs)
    found |= dict(zip(beams.crops.tolist(), beams.results(), strict=True))
    return [found[crop] for crop in crops]
