"""How much is decoded at one time: what fits in a chunk goes together, and a chunk is never exceeded where it can be helped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_coca import crops, group, network, rules
from small_coca import decode as decode_with

from pseudoris_cli.decoding import beam, distribution, engine
from pseudoris_cli.decoding.distribution import Views, next_tokens, own_logprobs
from pseudoris_cli.decoding.engine import CropGroup, Decoder
from pseudoris_cli.decoding.rules import Generated

GIVEN = rules()  # four samplers


class NoNetwork:
    """Stands where a network would; the calls are recorded instead."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def precompute_cross_kv(self, tokens: torch.Tensor) -> None:
        self.batches.append(len(tokens))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What the decoder asks beam search and sampling for; both answer with what they were asked."""
    made: list[tuple[str, Any]] = []

    def search(network: Any, cross_kv: Any, crops: range, width: int, given: Any) -> list[Generated]:
        made.append(("beam", crops))
        return [Generated((crop,), 0.0) for crop in crops]

    def sample(network: Any, cross_kv: Any, groups: Any, rows: list[Any], given: Any, choose: Any) -> list[Generated]:
        made.append(("sample", len(rows)))
        return [Generated((groups[row.group].first + row.crop, row.sampler), 0.0) for row in rows]

    monkeypatch.setattr(engine, "search_captions", search)
    monkeypatch.setattr(engine, "sample_captions", sample)
    return made


def groups(*sizes: int) -> list[CropGroup]:
    return [CropGroup(torch.zeros(n, 1, 1), np.zeros((n, n), np.float32), np.zeros((n, 4, 10))) for n in sizes]


def decode(sizes: tuple[int, ...], chunk: int, beams: int = 0) -> tuple[NoNetwork, list[list[list[tuple[int, ...]]]]]:
    network = NoNetwork()
    found = Decoder(network, GIVEN, beams, chunk).decode(groups(*sizes))  # type: ignore[arg-type]
    return network, [[[one.tokens for one in crop] for crop in group] for group in found]


def test_every_crop_gets_its_own_beam_and_samples(calls: list[Any]) -> None:
    _, found = decode((2, 1), 1000, beams=2)
    own = [[(crop,), *((crop, sampler) for sampler in range(4))] for crop in range(3)]
    assert found == [own[:2], own[2:]]
    assert calls == [("beam", range(3)), ("sample", 12)]


@pytest.mark.parametrize(
    ("chunk", "batches"),
    [
        (1000, [6]),
        (48, [6]),  # 3 groups of 2 crops: 2 x 4 samplers x 2 pairs are 16 each, and 48 is just enough
        (47, [4, 2]),
        (32, [4, 2]),
        (16, [2, 2, 2]),
        (1, [2, 2, 2]),  # a group is never parted from its contrast
    ],
)
def test_groups_are_decoded_together_while_their_pairs_fit(calls: list[Any], chunk: int, batches: list[int]) -> None:
    network, found = decode((2, 2, 2), chunk)
    assert network.batches == batches
    assert [len(group) for group in found] == [2, 2, 2]


@pytest.mark.parametrize(("chunk", "most"), [(36, 12), (35, 6), (12, 4), (6, 2), (3, 1), (2, 1), (1, 1)])
def test_a_chunk_holds_the_rows_that_fit_and_one_at_least(calls: list[Any], chunk: int, most: int) -> None:
    """Three crops and four samplers are twelve rows of three pairs each; parts are even."""
    decode((3,), chunk)
    sizes = [size for _, size in calls]
    assert sum(sizes) == 12
    assert max(sizes) == most


@pytest.mark.parametrize(
    ("chunk", "parts"), [(1000, [5]), (10, [5]), (9, [2, 3]), (4, [1, 2, 2]), (2, [1] * 5), (1, [1] * 5)]
)
def test_beam_search_takes_the_crops_that_fit_and_one_at_least(calls: list[Any], chunk: int, parts: list[int]) -> None:
    decode((5,), chunk, beams=2)
    ranges = [crops for what, crops in calls if what == "beam"]
    assert [len(crops) for crops in ranges] == parts
    assert [crop for crops in ranges for crop in crops] == list(range(5))


def test_the_chunk_is_halved_until_it_fits_and_only_for_that_batch(
    calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[int, int]] = []
    plainly = Decoder._decode_batch

    def cramped(self: Decoder, batch: list[CropGroup], chunk: int) -> Any:
        tried.append((sum(group.size for group in batch), chunk))
        if len(tried) < 4:
            raise torch.OutOfMemoryError
        return plainly(self, batch, chunk)

    monkeypatch.setattr(Decoder, "_decode_batch", cramped)
    decoder = Decoder(NoNetwork(), GIVEN, 0, 33)  # type: ignore[arg-type]
    assert len(decoder.decode(groups(2, 2, 2))) == 3
    assert tried == [(4, 33), (2, 16), (2, 8), (2, 4), (2, 16), (2, 33)]
    assert decoder.halvings == 3


def test_another_error_is_no_shortage(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Decoder, batch: list[CropGroup], chunk: int) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Decoder, "_decode_batch", broken)
    decoder = Decoder(NoNetwork(), GIVEN, 0, 64)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="shapes"):
        decoder.decode(groups(2))
    assert decoder.halvings == 0


@pytest.mark.parametrize("block", [1, 3, 7])
def test_blocks_of_logits_change_no_token(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven views in blocks: each row still gets the tokens of its own view."""
    net, generator = network(), torch.Generator().manual_seed(1)
    hidden = torch.randn(9, net.width, generator=generator)
    others = np.array([[7, 8], [8, 0], [1, 7], [2, 3], [8, 8], [0, 1], [5, 4]])
    weights = np.linspace(0.1, 0.5, 14, dtype=np.float32).reshape(7, 2)
    views = Views(np.array([0, 1, 2, 3, 4, 5, 6]), others, weights, np.linspace(1, 1.5, 7))
    rows = np.stack([np.array([6, 0, 3, 3, 5, 1, 2, 4, 6]), np.array([0, 1, 2, 3, 0, 1, 2, 3, 3])])

    def answer() -> tuple[Any, np.ndarray]:
        return next_tokens(net, GIVEN, hidden, views, rows, 9), own_logprobs(net, hidden, 5)

    with torch.inference_mode():
        whole, logprobs = answer()
        monkeypatch.setattr(distribution, "_BLOCK", block)
        parts, logprobs_of_parts = answer()
    assert parts.start.tolist() == whole.start.tolist()
    assert parts.token.tolist() == whole.token.tolist()
    np.testing.assert_allclose(parts.weight, whole.weight, rtol=1e-4)
    np.testing.assert_allclose(parts.logprob, whole.logprob, rtol=1e-4)
    np.testing.assert_allclose(logprobs_of_parts, logprobs, rtol=1e-4)
    assert len(logprobs) == 9


def test_blocks_of_logits_change_no_beam(monkeypatch: pytest.MonkeyPatch) -> None:
    net, given = network(), rules(top_k=(), top_p=(), max_length=6)
    images = [group(net, crops(5), 0)]
    whole = decode_with(net, images, given, beams=2)
    monkeypatch.setattr(beam, "_BLOCK", 3)
    parts = decode_with(net, images, given, beams=2)
    assert [[crop[0].tokens for crop in one] for one in parts] == [[crop[0].tokens for crop in one] for one in whole]
