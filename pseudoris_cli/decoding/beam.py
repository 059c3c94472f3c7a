"""Beam search as in the Pseudo-RIS release: scores are sums of raw logits, with the rules of transformers 4.30.

The release asks for 6 beams in 3 groups without a diversity penalty, so its groups are copies of each other and 2 beams
in one group give the same captions.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pseudoris_cli import watching
from pseudoris_cli.decoding.distribution import peak_and_mass
from pseudoris_cli.decoding.kv_cache import PrefixStates
from pseudoris_cli.decoding.network import CaptionNetwork, CrossKV
from pseudoris_cli.decoding.rules import DecodingRules, Generated

NEVER = np.float32(-1e9)
"""Score of the beams that do not exist before the first step."""
_BLOCK = 256
"""Rows whose logits are in memory at one time."""


@dataclass(slots=True)
class Beam:
    """An unfinished sequence (tokens without the start): score in float32 as in the release, and its prefix's cache slot."""

    tokens: tuple[int, ...]
    score: np.float32
    logprob: float
    slot: int


@dataclass(frozen=True, slots=True)
class _Continuation:
    """A beam extended by one token."""

    beam: int
    token: int
    score: np.float32
    logprob: float


@dataclass(slots=True)
class Search:
    """Beam search for one crop: open beams and the best finished sequences."""

    width: int
    beams: list[Beam]
    finished: list[tuple[float, Generated]] = field(default_factory=list)
    done: bool = False

    def grow(self, continuations: list[_Continuation], length: int, end: int) -> list[Beam]:
        """The beams after the 2 x width best continuations of prefixes of `length` tokens, still with their parents' slots.

        An end token among the first `width` ranks finishes a sequence, one below them is dropped. The search is done once
        `width` sequences are finished and the worst of them is at least as good as the best continuation, per token.
        """
        beams: list[Beam] = []
        for rank, continuation in enumerate(continuations):
            beam = self.beams[continuation.beam]
            tokens = (*beam.tokens, continuation.token)
            if continuation.token != end:
                beams.append(Beam(tokens, continuation.score, continuation.logprob, beam.slot))
            elif rank < self.width:
                self._finish(float(continuation.score) / length, Generated(tokens, continuation.logprob))
            if len(beams) == self.width:
                break
        if len(self.finished) >= self.width:
            worst = min(score for score, _ in self.finished)
            self.done = worst >= float(continuations[0].score) / length
        return beams

    def result(self, length: int) -> Generated:
        """The sequence with the best score per token; unfinished beams count too unless the search is done."""
        if not self.done:
            for beam in self.beams:
                self._finish(float(beam.score) / length, Generated(beam.tokens, beam.logprob))
        return max(reversed(self.finished), key=lambda pair: pair[0])[1]

    def _finish(self, score: float, sequence: Generated) -> None:
        """Add a finished sequence; a full list keeps the better of it and its worst."""
        if len(self.finished) < self.width:
            self.finished.append((score, sequence))
            return
        worst = min(range(len(self.finished)), key=lambda index: self.finished[index][0])
        if score > self.finished[worst][0]:
            del self.finished[worst]
            self.finished.append((score, sequence))


def search_captions(
    network: CaptionNetwork, cross_kv: CrossKV, crops: range, width: int, rules: DecodingRules
) -> list[Generated]:
    """The best caption of every crop in `crops`, a range of the crops in `cross_kv`, with `width` beams.

    A caption that reaches `max_length` tokens has no end token.
    """
    searches = [
        Search(width, [Beam((), np.float32(0), 0.0, 0)] + [Beam((), NEVER, 0.0, 0)] * (width - 1)) for _ in crops
    ]
    pairs = len(crops) * width
    states = PrefixStates(network, cross_kv, pairs, pairs, rules.max_length - 1)
    length = 1
    while length < rules.max_length:
        watching.tell((length - 1) / rules.max_length)
        live = [(crop, search) for crop, search in zip(crops, searches, strict=True) if not search.done]
        if not live:
            break
        ranked = _RankedContinuations(network, states, live, rules, length)
        for index, (_, search) in enumerate(live):
            search.beams = search.grow(ranked.of_search(index), length, rules.end)
        length += 1
    return [search.result(length) for search in searches]


class _RankedContinuations:
    """The best continuations of the beams of all searches that are not done."""

    def __init__(
        self,
        network: CaptionNetwork,
        states: PrefixStates,
        live: list[tuple[int, Search]],
        rules: DecodingRules,
        length: int,
    ) -> None:
        self.live = live
        beams = [(crop, beam) for crop, search in live for beam in search.beams]
        last = [beam.tokens[-1] if beam.tokens else rules.start for _, beam in beams]
        requests = np.array([[beam.slot for _, beam in beams], last])
        (parents, tokens), prefix = np.unique(requests, axis=1, return_inverse=True)
        crops = np.array([crop for crop, _ in beams])
        keys, self._pair = np.unique(prefix * states.crops + crops, return_inverse=True)
        slots, hidden = states.advance(parents, tokens, keys // states.crops, keys % states.crops)
        for (_, beam), slot in zip(beams, slots[prefix], strict=True):
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

    def of_search(self, index: int) -> list[_Continuation]:
        """The 2 x width best continuations of one search, in descending order of score."""
        _, search = self.live[index]
        first = index * search.width
        found = []
        for number, beam in enumerate(search.beams):
            pair = self._pair[first + number]
            for value, token, logprob in zip(self._values[pair], self._tokens[pair], self._logprobs[pair], strict=True):
                found.append(_Continuation(number, token, np.float32(value) + beam.score, beam.logprob + logprob))
        found.sort(key=lambda continuation: -continuation.score)
        return found[: 2 * search.width]
