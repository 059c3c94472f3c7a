"""What ships in pseudoris_cli/demo: weights with their provenance, the vocabulary, the head-noun pipeline."""

from __future__ import annotations

import copy
import itertools
import json

import open_clip
import pytest
import spacy
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pseudoris_cli.demo.grammar import COLOURS, SHAPES, WORDS, Wording, compose
from pseudoris_cli.models.nouns import head_noun
from pseudoris_cli.networks import clip_configs, coca_configs, sam_sizes
from pseudoris_cli.resources import PACKAGE

WEIGHTS = PACKAGE / "demo" / "weights"
NETWORKS = ("sam", "coca", "clip")


def empty_network(name):
    if name == "sam":
        return sam_sizes.empty(sam_sizes.SIZES["demo"])
    config = copy.deepcopy({"coca": coca_configs.DEMO, "clip": clip_configs.DEMO}[name])
    config.pop("custom_text", None)
    with torch.device("meta"):
        return {"coca": open_clip.CoCa, "clip": open_clip.CLIP}[name](**config)


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_fit_their_network_exactly(name):
    tensors = load_file(WEIGHTS / f"{name}.safetensors")
    expected = empty_network(name).state_dict()
    assert {key: value.shape for key, value in tensors.items()} == {key: v.shape for key, v in expected.items()}
    assert all(torch.isfinite(value).all() for value in tensors.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_say_how_they_were_made(name):
    with safe_open(WEIGHTS / f"{name}.safetensors", "pt") as file:
        provenance = {key: json.loads(value) for key, value in file.metadata().items()}
    assert provenance["script"] == f"training/train_{name}.py"
    assert provenance["steps"] == provenance["of_steps"]
    assert provenance["data"]["split"] == "train"  # no other split's seeds: see test_world
    assert {"seed", "cpu_minutes", "figures"} <= provenance.keys()


def test_everything_embedded_stays_small():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 15e6
    assert sum(path.stat().st_size for path in (PACKAGE / "demo" / "nouns").rglob("*") if path.is_file()) < 2e6


def test_every_word_of_the_world_is_one_token():
    tokenizer = open_clip.SimpleTokenizer(bpe_path=str(WEIGHTS / "bpe.txt.gz"), context_length=24)
    for config in (coca_configs.DEMO, clip_configs.DEMO):
        assert config["text_cfg"]["vocab_size"] == tokenizer.vocab_size
        assert config["text_cfg"]["context_length"] == 24
    for word in WORDS:
        (token,) = tokenizer.encode(word)
        assert tokenizer.decode([token]).strip() == word


def test_the_pipeline_finds_the_shape_that_a_phrase_is_about():
    nlp = spacy.load(PACKAGE / "demo" / "nouns")
    wordings = [
        Wording(shape, colour, texture, size, tail, definite)
        for shape, colour, texture, size, tail, definite in itertools.product(
            SHAPES, ("", *COLOURS[:4]), ("", "plain"), ("", "tiny"), ("", "dots"), (False, True)
        )
        if not (texture and tail)
    ]
    found = [head_noun(doc) for doc in nlp.pipe(compose(wording) for wording in wordings)]
    assert found == [wording.shape for wording in wordings]
