"""Train the demo's spaCy pipeline, which finds the head noun of a caption:  python training/train_nouns.py

A small shared encoder with a morphologizer (parts of speech) and a parser (dependencies), trained on phrases of the
grammar, on noun prompts, and on phrases with a word dropped or repeated, as an imperfect captioner writes them.
About a minute on one core. Prints how often the head noun found is the shape that the phrase names.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import spacy
from phrases import draw_phrase
from pool import NAMES
from spacy.tokens import Doc
from spacy.training import Example

from pseudoris_cli.backends.nouns import head_noun
from pseudoris_cli.demo.grammar import ARTICLES, COLOURS, PROMPT_WORDS, SHAPES, SIZE_WORDS, TEXTURE_NOUNS, TEXTURE_WORDS

TARGET = Path(__file__).resolve().parent.parent / "pseudoris_cli/demo/nouns"
SEED, STEPS, BATCH = 3, 500, 32
NOUNS = {*SHAPES, *TEXTURE_NOUNS, PROMPT_WORDS[0]}
ADJECTIVES = {*SIZE_WORDS, *TEXTURE_WORDS, *COLOURS}


def draw_text(rng: np.random.Generator) -> list[str]:
    """The words of a phrase, of a noun prompt, or of a damaged phrase."""
    code = np.array([rng.integers(len(names)) for names in NAMES])
    words = draw_phrase(code, rng)[0].split()
    kind = rng.random()
    if kind < 0.15:
        return ["a", "photo", "of", *words]
    if kind < 0.4:
        index = int(rng.integers(len(words)))
        kept = words[:index] + words[index + 1 :] if rng.random() < 0.5 else words[: index + 1] + words[index:]
        return kept if any(word in NOUNS for word in kept) else words
    return words


def annotate(nlp: spacy.Language, words: list[str]) -> Example:
    """The phrase with parts of speech and dependencies.

    Nouns form a chain through their prepositions; the head of an adjective or article is the next noun, or else the last.
    """
    nouns = [i for i, word in enumerate(words) if word in NOUNS]
    root = nouns[0]
    heads, labels, tags = list(range(len(words))), ["ROOT"] * len(words), ["NOUN"] * len(words)
    for i, word in enumerate(words):
        following = next((n for n in nouns if n > i), nouns[-1])
        before = next((n for n in reversed(nouns) if n < i), root)
        if word in ARTICLES:
            heads[i], labels[i], tags[i] = following, "det", "DET"
        elif word in ADJECTIVES:
            heads[i], labels[i], tags[i] = following, "amod", "ADJ"
        elif word in ("with", "of"):
            heads[i], labels[i], tags[i] = before, "prep", "ADP"
        elif i != root:
            link = next((p for p in range(before + 1, i) if words[p] in ("with", "of")), None)
            heads[i], labels[i] = (link, "pobj") if link is not None else (before, "appos")
    reference = Doc(nlp.vocab, words=words, pos=tags, heads=heads, deps=labels)
    return Example(nlp.make_doc(" ".join(words)), reference)


def build_pipeline() -> spacy.Language:
    """An English pipeline of one small encoder, a morphologizer and a parser."""
    nlp = spacy.blank("en")
    encoder = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": 48,
        "depth": 2,
        "embed_size": 300,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
    }
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 48, "upstream": "tok2vec"}
    nlp.add_pipe("tok2vec", config={"model": encoder})
    tagger = {"@architectures": "spacy.Tagger.v2", "nO": None, "tok2vec": listener}
    nlp.add_pipe("morphologizer", config={"model": tagger})
    parser = {
        "@architectures": "spacy.TransitionBasedParser.v2",
        "state_type": "parser",
        "extra_state_tokens": False,
        "hidden_width": 32,
        "maxout_pieces": 2,
        "use_upper": True,
        "nO": None,
        "tok2vec": listener,
    }
    nlp.add_pipe("parser", config={"model": parser, "min_action_freq": 1})
    return nlp


def main() -> None:
    spacy.util.fix_random_seed(SEED)
    random.seed(SEED)
    rng = np.random.default_rng(SEED)
    nlp = build_pipeline()
    nlp.initialize(lambda: [annotate(nlp, draw_text(rng)) for _ in range(300)])
    optimizer = nlp.create_optimizer()
    for step in range(STEPS):
        losses: dict[str, float] = {}
        nlp.update([annotate(nlp, draw_text(rng)) for _ in range(BATCH)], sgd=optimizer, drop=0.1, losses=losses)
        if (step + 1) % 100 == 0:
            print(step + 1, {name: round(loss, 3) for name, loss in losses.items()}, flush=True)
    phrases = [draw_phrase(np.array([rng.integers(len(names)) for names in NAMES]), rng) for _ in range(1000)]
    right = [head_noun(nlp(text)) == SHAPES[claim[0]] for text, claim in phrases]
    nlp.meta.update(
        name="pseudoris_demo_nouns",
        description="Head nouns of the demo world's captions",
        notes=f"training/train_nouns.py, seed {SEED}, {STEPS} steps; head noun right for {np.mean(right):.1%} of 1,000",
    )
    nlp.to_disk(TARGET)
    size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
    print(f"head noun right: {np.mean(right):.4f} of {len(right)}; {size / 1e6:.2f} MB -> {TARGET}")


if __name__ == "__main__":
    main()
