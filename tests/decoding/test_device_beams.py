"""Beam search on the device gives the captions of the host's: on tables, on the recorded network, on random rules and chunks."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from beam_judge import judge_beams, judge_known, random_cases
from coca_parity import FIXTURES, load_parity
from cuda_double import CudaDouble
from known_beams import KNOWN
from small_coca import VOCABULARY, assert_agree, crops, group, network, rules
from table_network import STYLES, BeamCase, TableNetwork, random_case

from pseudoris_cli.decoding import device_beams
from pseudoris_cli.decoding.beam import search_captions
from pseudoris_cli.decoding.device_beams import search_on_device
from pseudoris_cli.decoding.engine import CropGroup, Decoder
from pseudoris_cli.decoding.rules import DecodingRules

CASES = 200


@torch.inference_mode()
def both(net: Any, given: DecodingRules, groups: list[CropGroup], beams: int, row_chunk: int) -> tuple[list, list]:
    device, host = (Decoder(net, given, beams, row_chunk, form).decode(groups) for form in ("device", "host"))
    return device, host


@pytest.mark.parametrize("name", KNOWN)
def test_known_results(name: str) -> None:
    judge_known(name, search_on_device)


@pytest.mark.parametrize("style", STYLES)
def test_random_tables_beside_the_plain_search(style: str) -> None:
    judge_beams((random_case(style, seed) for seed in range(100)), search_on_device)


def same_as_the_host(case: BeamCase) -> None:
    asked = range(1, 1 + case.crops)
    found = []
    for search in (search_on_device, search_captions):
        table: Any = TableNetwork(case.table)
        found.append(search(table, table.cross_kv(1 + case.crops), asked, case.width, case.rules))
    assert [one.tokens for one in found[0]] == [one.tokens for one in found[1]], case.name
    assert np.allclose([one.logprob for one in found[0]], [one.logprob for one in found[1]], atol=1e-6), case.name


def test_random_tables_beside_the_host_s_search() -> None:
    """Ties included: both order equal sums alike."""
    for case in random_cases(120):
        same_as_the_host(case)


@pytest.fixture(scope="module")
def nets() -> list[Any]:
    return [network(seed) for seed in range(4)]


@pytest.mark.parametrize("part", range(10))
def test_random_cases(nets: list[Any], part: int) -> None:
    for number in range(part * CASES // 10, (part + 1) * CASES // 10):
        rng = random.Random(number)
        net = nets[number % len(nets)]
        longest = rng.randint(3, 20)
        given = rules(
            top_k=(),
            top_p=(),
            end=rng.choice([96, 96, rng.randrange(VOCABULARY)]),
            min_length=rng.randint(1, longest - 1),
            max_length=longest,
        )
        sizes = [rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
        groups = [group(net, crops(size, number + size), 0, number) for size in sizes]
        assert_agree(*both(net, given, groups, rng.randint(1, 5), rng.choice([5, 20, 1000])))


@pytest.mark.parametrize(("masks", "beams"), [(2, 2), (5, 2), (3, 6)])
def test_the_recorded_network(masks: int, beams: int) -> None:
    load_parity()
    from dataclasses import replace

    from coca_recordings import load
    from coca_recordings import rules as recorded_rules

    net, images, config = load(FIXTURES)
    given = replace(recorded_rules(config), top_k=(), top_p=())
    with torch.inference_mode():
        latents, tokens = net.encode(images[:masks], 64)
    picked = CropGroup(tokens, (latents @ latents.T).numpy(), np.zeros((masks, 0, given.max_length)))
    ours, theirs = both(net, given, [picked], beams, 1024)
    assert [[one.tokens for one in crop] for crop in ours[0]] == [[one.tokens for one in crop] for crop in theirs[0]]
    assert max(len(one.tokens) for crop in ours[0] for one in crop) > 5
    numbers = [[one.logprob for crop in side[0] for one in crop] for side in (ours, theirs)]
    assert np.allclose(*numbers, atol=1e-3)


def test_searches_leave_once_half_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    compact = device_beams.DeviceBeams.compact

    def noted(self: Any, kept: np.ndarray) -> None:
        sizes.append((len(self.crops), len(kept)))
        compact(self, kept)

    monkeypatch.setattr(device_beams.DeviceBeams, "compact", noted)
    for seed in range(30):
        same_as_the_host(replace(random_case("end at a rank", seed), crops=18))
    assert len(sizes) > 3
    assert all(0 < 2 * left <= before for before, left in sizes)


def test_the_host_looks_once_in_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step waits for nothing; besides there are a look after every four steps, and of each chunk layout and results."""
    step = device_beams.DeviceBeams.step
    found = {}
    with CudaDouble() as gpu, torch.inference_mode():
        net = network(device="cuda:1")
        groups = [group(net, crops(3, 3).to("cuda:1"), 0, 1)]

        def alone(self: Any) -> None:
            with gpu.forbid():
                step(self)

        monkeypatch.setattr(device_beams.DeviceBeams, "step", alone)
        for longest in (10, 22):
            given = rules(top_k=(), top_p=(), min_length=longest - 1, max_length=longest)
            decoder = Decoder(net, given, 2, 1000, "device")
            decoder.decode(groups)
            with gpu.counting() as found[longest]:
                decoder.decode(groups)
    assert found[22].places["decoding/device_beams.py:look", "cpu"] == 5, "21 steps"
    assert found[22].total - found[10].total == 3, found[22].places
    assert found[22].total <= 5 + CHUNK, found[22].places


CHUNK = 3
"""Waits of a chunk: two tables of rows up, the captions down."""
