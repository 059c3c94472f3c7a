"""Beam search as the release runs it: sums of raw logits, with the rules of transformers 4.30.

The release asks for 6 beams in 3 groups, but sets no diversity penalty, so its groups are copies: 2 beams are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pseudoris_cli.decoding.distribution import peak_and_mass
from pseudoris_cli.decoding.kv_cache import PrefixStates
from pseudoris_cli.decoding.network import CaptionNetwork, CrossMemory
from pseudoris_cli.decoding.rules import Generated, Rules

_NEVER = np.float32(-1e9)
"""Score of the beams that do not exist yet."""
_BLOCK = 256


@dataclass(slots=True)
class _Beam:
    """An open sequence without its start: score in float32 as in the release, log-probability, slot of its prefix."""

    tokens: tuple[int, ...]
    score: np.float32
    logprob: float
    slot: int


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One token more on one beam."""

    beam: int
    token: int
    score: np.float32
    logprob: float


@dataclass(slots=True)
class _Search:
    """Beam search for one crop: open beams and the best finished sequences."""

    width: int
    beams: list[_Beam]
    finished: list[tuple[float, Generated]] = field(default_factory=list)
    done: bool = False

    def grow(self, candidates: list[_Candidate], length: int, end: int) -> list[_Beam]:
        """Take the 2 x width best candidates after prefixes of `length` tokens; the new beams, still at their parents' slots.

        An end among the first `width` closes a sequence; an end below them is dropped. The search is over once `width`
        sequences are closed and the worst of them beats the best candidate's score per token.
        """
        going: list[_Beam] = []
        for rank, candidate in enumerate(candidates):
            beam = self.beams[candidate.beam]
            tokens = (*beam.tokens, candidate.token)
            if candidate.token != end:
                going.append(_Beam(tokens, candidate.score, candidate.logprob, beam.slot))
            elif rank < self.width:
                self._close(float(candidate.score) / length, Generated(tokens, candidate.logprob))
            if len(going) == self.width:
                break
        if len(self.finished) >= self.width:
            worst = min(score for score, _ in self.finished)
            self.done = worst >= float(candidates[0].score) / length
        return going

    def result(self, length: int) -> Generated:
        """The sequence with the best score per token, open beams counted too unless the search is over."""
        if not self.done:
            for beam in self.beams:
                self._close(float(beam.score) / length, Generated(beam.tokens, beam.logprob))
        return max(reversed(self.finished), key=lambda pair: pair[0])[1]

    def _close(self, score: float, sequence: Generated) -> None:
        """Keep a sequence if it is better than the worst of a full list."""
        if len(self.finished) < self.width:
            self.finished.append((score, sequence))
            return
        worst = min(range(len(self.finished)), key=lambda place: self.finished[place][0])
        if score > self.finished[worst][0]:
            del self.finished[worst]
            self.finished.append((score, sequence))


def search_captions(
    network: CaptionNetwork, memory: CrossMemory, crops: range, width: int, rules: Rules
) -> list[Generated]:
    """The beam caption of every crop of the memory in `crops`.

    A caption that reaches `max_length` tokens has no end token.
    """
    searches = [
        _Search(width, [_Beam((), np.float32(0), 0.0, 0)] + [_Beam((), _NEVER, 0.0, 0)] * (width - 1)) for _ in crops
    ]
    pairs = len(crops) * width
    states = PrefixStates(network, memory, pairs, pairs, rules.max_length - 1)
    length = 1
    while length < rules.max_length:
        live = [(crop, search) for crop, search in zip(crops, searches, strict=True) if not search.done]
        if not live:
            break
        ranked = _Ranked(network, states, live, rules, length)
        for place, (_, search) in enumerate(live):
            search.beams = search.grow(ranked.candidates(place), length, rules.end)
        length += 1
    return [search.result(length) for search in searches]


class _Ranked:
    """The best continuations of every live beam."""

    def __init__(
        self,
        network: CaptionNetwork,
        states: PrefixStates,
        live: list[tuple[int, _Search]],
        rules: Rules,
        length: int,
    ) -> None:
        self.live = live
        beams = [(place, crop, beam) for place, (crop, search) in enumerate(live) for beam in search.beams]
        last = [beam.tokens[-1] if beam.tokens else rules.start for _, _, beam in beams]
        requests = np.array([[beam.slot for _, _, beam in beams], last])
        (parents, tokens), prefix = np.unique(requests, axis=1, return_inverse=True)
        crops = np.array([crop for _, crop, _ in beams])
        keys, self._view = np.unique(prefix * states.crops + crops, return_inverse=True)
        slots, hidden = states.advance(parents, tokens, keys // states.crops, keys % states.crops)
        for (_, _, beam), slot in zip(beams, slots[prefix], strict=True):
            beam.slot = int(slot)
        self._values: list[list[float]] = []
        self._tokens: list[list[int]] = []
        self._logprobs: list[list[float]] = []
        most = 2 * live[0][1].width
        for start in range(0, len(hidden), _BLOCK):
            logits = network.logits(hidden[start : start + _BLOCK])
            top, mass = peak_and_mass(logits)
            if length < rules.min_length:
                logits[:, rules.end] = -float("inf")
            best = logits.topk(min(most, logits.shape[1]), dim=1)
            values = best.values.cpu().numpy()
            self._values += values.tolist()
            self._tokens += best.indices.cpu().numpy().tolist()
            self._logprobs += (values - (top + np.log(mass))[:, None]).tolist()

    def candidates(self, place: int) -> list[_Candidate]:
        """The 2 x width best continuations of one search, best first."""
        _, search = self.live[place]
        first = place * search.width
        found = []
        for number, beam in enumerate(search.beams):
            view = self._view[first + number]
            for value, token, logprob in zip(self._values[view], self._tokens[view], self._logprobs[view], strict=True):
                found.append(_Candidate(number, token, np.float32(value) + beam.score, beam.logprob + logprob))
        found.sort(key=lambda candidate: -candidate.score)
        return found[: 2 * search.width]
