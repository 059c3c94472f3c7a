"""Captions do not depend on what else is decoded, on order or chunks, but for rounding; out of memory halves the chunk."""

from __future__ import annotations

import pytest
import torch
from small_coca import assert_agree, crops, decode, group, network, rules

from pseudoris_cli.decoding import engine
from pseudoris_cli.decoding.engine import Decoder, even_parts

GIVEN = rules()


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def groups(net):
    return [group(net, crops(count, count), GIVEN.samplers, count) for count in (3, 1, 4, 2)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_group_gets_the_same_captions_alone_and_in_any_order(net, groups, threads: int) -> None:
    """Kernels are chosen by the batch's shape, so the last digits may move; of a batch of the same shape they may not."""
    before, given = torch.get_num_threads(), rules(max_length=6)
    torch.set_num_threads(threads)
    try:
        together = decode(net, groups, given, beams=2, row_chunk=1000)
        assert decode(net, groups, given, beams=2, row_chunk=1000) == together
        assert_agree([decode(net, [one], given, beams=2, row_chunk=1000)[0] for one in groups[:2]], together[:2])
        assert_agree(decode(net, groups[::-1], given, beams=2, row_chunk=1000)[::-1], together)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("row_chunk", [3, 17])
def test_chunks_change_no_caption(net, groups, row_chunk: int) -> None:
    cut, whole = (decode(net, groups, GIVEN, beams=2, row_chunk=size) for size in (row_chunk, 1000))
    assert_agree(cut, whole)
    assert decode(net, groups, GIVEN, beams=2, row_chunk=row_chunk) == cut


def test_beams_and_samplers_do_not_touch_each_other(net, groups) -> None:
    both = decode(net, groups, GIVEN, beams=2)
    beams = decode(net, groups, rules(top_k=(), top_p=()), beams=2)
    assert_agree([[crop[:1] for crop in one] for one in both], beams)
    assert_agree([[crop[1:] for crop in one] for one in both], decode(net, groups, GIVEN, beams=0))


def test_no_captions_are_asked_for(net, groups) -> None:
    assert decode(net, groups[:1], rules(top_k=(), top_p=()), beams=0) == [[[], [], []]]
    assert decode(net, [], GIVEN, beams=2) == []


def test_out_of_memory_halves_the_chunk(net, groups, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sample = engine.sample_captions

    def cramped(network, cross_kv, contrast_groups, rows, given, choose):
        sizes.append(len(rows))
        if len(rows) > 8:
            raise torch.OutOfMemoryError
        return sample(network, cross_kv, contrast_groups, rows, given, choose)

    expected = decode(net, groups, GIVEN, row_chunk=1000)
    monkeypatch.setattr(engine, "sample_captions", cramped)
    decoder = Decoder(net, GIVEN, 0, 64)
    with torch.inference_mode():
        assert_agree(decoder.decode(groups), expected)
    assert decoder.halvings > 0
    assert max(sizes) > 8


def test_out_of_memory_with_one_row_is_raised(net, groups, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine, "sample_captions", full)
    with pytest.raises(torch.OutOfMemoryError):
        Decoder(net, GIVEN, 0, 4).decode(groups)


def test_even_parts() -> None:
    assert list(even_parts(7, 3)) == [slice(0, 2), slice(2, 4), slice(4, 7)]
    assert list(even_parts(0, 3)) == []
