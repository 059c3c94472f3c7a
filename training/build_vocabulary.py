"""Write the demo vocabulary: those of CLIP's byte-pair merges that make every word of the demo world one token.

    python training/build_vocabulary.py

open_clip's `SimpleTokenizer(bpe_path=pseudoris_cli/demo/weights/bpe.txt.gz, context_length=24)` reads the file; every
token has the same string as in CLIP's vocabulary, so these weights can be copied into a model with that vocabulary.
"""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

from open_clip.tokenizer import SimpleTokenizer

from pseudoris_cli.demo.grammar import WORDS

TARGET = Path(__file__).resolve().parent.parent / "pseudoris_cli/demo/weights/bpe.txt.gz"
Pair = tuple[str, str]


def merges_of(word: str, ranks: dict[Pair, int]) -> list[Pair]:
    """The merges that build a word, in the order in which the tokenizer applies them."""
    parts, used = [*word[:-1], word[-1] + "</w>"], []
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            raise ValueError(f"CLIP's vocabulary has no single token for {word!r}")
        used.append(best)
        joined: list[str] = []
        for part in parts:
            if joined and joined[-1] == best[0] and part == best[1]:
                joined[-1] = best[0] + best[1]
            else:
                joined.append(part)
        parts = joined
    return used


def main() -> None:
    stock = SimpleTokenizer()
    needed = {pair for word in WORDS for pair in merges_of(word, stock.bpe_ranks)}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in sorted(needed, key=stock.bpe_ranks.__getitem__))]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    ours = SimpleTokenizer(bpe_path=str(TARGET), context_length=24)
    assert all(len(ours.encode(word)) == 1 for word in WORDS)
    print(f"{len(needed)} merges, {ours.vocab_size} tokens, {TARGET.stat().st_size} bytes -> {TARGET}")


if __name__ == "__main__":
    main()
