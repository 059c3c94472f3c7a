"""Beam search by the rules of transformers 4.30's grouped search with the release's raw logits: the judge of ours.

Written from the rules, one crop at a time, with Python lists and loops; all that it has in common with the decoder is the
dataclass of rules. Where sums are equal, torch.topk may order them in any way, so `outcomes` gives the result of every order;
its first is that of the lowest beam, then the lowest token.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from pseudoris_cli.decoding.rules import DecodingRules

Sequence = tuple[int, ...]
Scorer = Callable[[list[Sequence]], np.ndarray]
"""Sequences of one length, the start included -> raw logits float32 [sequences, vocabulary] of the next token."""


@dataclass
class Hypotheses:
    """The finished sequences of one image, shared by its groups: at most `size`; `worst` is the lowest score among them."""

    size: int
    found: list[tuple[float, Sequence]] = field(default_factory=list)
    worst: float = 1e9

    def copy(self) -> Hypotheses:
        return Hypotheses(self.size, list(self.found), self.worst)

    def add(self, sequence: Sequence, total: float, length: int, notes: Counter[str]) -> None:
        """Add a sequence with the score total / length, unless the list is full and the score is no better than the worst.

        Where one too many is there, the worst goes: of equal ones the one that was added first.
        """
        score = total / length
        if len(self.found) == self.size and score <= self.worst:
            notes["tied with the worst" if score == self.worst else "worse than the worst"] += 1
            return
        self.found.append((score, sequence))
        if len(self.found) > self.size:
            scores = [one for one, _ in self.found]
            notes["replaced one of equal ones" if scores.count(min(scores)) > 1 else "replaced the worst"] += 1
            del self.found[scores.index(min(scores))]
        self.worst = min(one for one, _ in self.found)

    def is_done(self, best_total: float, length: int) -> bool:
        """Whether even the worst is as good as the best candidate per token (ended or not) of this step."""
        return len(self.found) == self.size and self.worst >= best_total / length

    def best(self, notes: Counter[str]) -> Sequence:
        """Of equal ones the one that was added last."""
        score = max(one for one, _ in self.found)
        equal = [sequence for one, sequence in self.found if one == score]
        notes["the best are tied"] += len(set(equal)) > 1
        return equal[-1]


@dataclass
class _State:
    sequences: list[Sequence]
    totals: list[float]
    hypotheses: Hypotheses
    done: bool = False


def outcomes(
    score: Scorer, beams: int, groups: int, rules: DecodingRules, notes: Counter[str] | None = None
) -> Iterator[list[int]]:
    """The tokens after the start that the search may find; `notes` counts what happened."""
    totals = [0.0 if beam % (beams // groups) == 0 else -1e9 for beam in range(beams)]
    start = _State([(rules.start,)] * beams, totals, Hypotheses(beams))
    yield from _go_on(start, score, groups, rules, Counter() if notes is None else notes)


def _go_on(state: _State, score: Scorer, groups: int, rules: DecodingRules, notes: Counter[str]) -> Iterator[list[int]]:
    length = len(state.sequences[0])
    if state.done or length == rules.max_length:
        if not state.done:
            notes["cut open"] += 1
            for sequence, total in zip(state.sequences, state.totals, strict=True):
                state.hypotheses.add(sequence, total, length, notes)
        yield list(state.hypotheses.best(notes)[1:])
        return
    logits = score(state.sequences)
    if length < rules.min_length:
        notes["end barred"] += bool(logits[0, rules.end] >= logits[0].max())
        logits = logits.copy()
        logits[:, rules.end] = -math.inf
    empty = _State([], [], state.hypotheses.copy())
    for grown in _grow(state, empty, logits, len(state.sequences) // groups, rules, notes):
        yield from _go_on(grown, score, groups, rules, notes)


def _grow(
    state: _State, grown: _State, logits: np.ndarray, width: int, rules: DecodingRules, notes: Counter[str]
) -> Iterator[_State]:
    """One more token for every beam, group after group, in every order of equal sums."""
    first = len(grown.sequences)
    if first == len(state.sequences):
        yield grown
        return
    if grown.done:  # an earlier group has finished the image in this step
        pads = [(*sequence, rules.pad) for sequence in state.sequences[first : first + width]]
        padded = _State(grown.sequences + pads, grown.totals + [0.0] * width, grown.hypotheses, True)
        yield from _grow(state, padded, logits, width, rules, notes)
        return
    for ranked in _rankings(_sums(logits, state.totals, first, width), 2 * width, notes):
        after = _State(list(grown.sequences), list(grown.totals), grown.hypotheses.copy())
        _take(state, after, ranked, first, width, rules, notes)
        yield from _grow(state, after, logits, width, rules, notes)


def _take(
    state: _State,
    after: _State,
    ranked: list[tuple[float, int, int]],
    first: int,
    width: int,
    rules: DecodingRules,
    notes: Counter[str],
) -> None:
    """An end among the first `width` ranks closes a hypothesis, a lower one is dropped; the first `width` others go on."""
    length = len(state.sequences[0])
    notes.update(f"end at rank {rank}" for rank, (_, _, token) in enumerate(ranked) if token == rules.end)
    for rank, (total, beam, token) in enumerate(ranked):
        sequence = state.sequences[beam]
        if token != rules.end:
            after.sequences.append((*sequence, token))
            after.totals.append(total)
        else:
            if rank < width:
                after.hypotheses.add((*sequence, token), total, length, notes)
        if len(after.sequences) == first + width:
            break
    full = len(after.hypotheses.found) == after.hypotheses.size
    after.done = after.hypotheses.is_done(ranked[0][0], length)
    notes["full and done" if after.done else "full and not done"] += full


def _sums(logits: np.ndarray, totals: list[float], first: int, width: int) -> list[tuple[float, int, int]]:
    """(sum, beam, token) of the 2 x width best of a group and of all that equal the last of them, best first.

    Sums are rounded to float32, as in the release: at -1e9 they no longer tell tokens apart.
    """
    sums = [(logits[beam] + np.float32(totals[beam])).astype(np.float32) for beam in range(first, first + width)]
    least = np.sort(np.concatenate(sums))[-2 * width]
    found = []
    for beam, row in enumerate(sums, start=first):
        for token in np.flatnonzero(row >= least).tolist():
            found.append((float(row[token]), beam, token))
    found.sort(key=lambda one: (-one[0], one[1], one[2]))
    return found


def _rankings(
    found: list[tuple[float, int, int]], count: int, notes: Counter[str]
) -> Iterator[list[tuple[float, int, int]]]:
    """The first `count` in every order of equal sums, the given one first."""
    if count <= 0 or not found:
        yield []
        return
    equal = [one for one in found if one[0] == found[0][0]]
    notes["sums are tied"] += len(equal) > 1
    for order in permutations(equal, min(len(equal), count)):
        for rest in _rankings(found[len(equal) :], count - len(order), notes):
            yield [*order, *rest]
