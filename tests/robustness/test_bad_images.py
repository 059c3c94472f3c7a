"""Hostile and odd images: each is decoded exactly, or refused with its reason, within bounded time and memory."""

from __future__ import annotations

import os
import re
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from bad_images import Bad, bad_images
from odd_files import NAMES, OddFile, lay_names, lay_natures
from odd_images import Odd, odd_images
from trivial_stages import in_child

from pseudoris_cli.codecs.image_decode import UndecodableImage, decode_rgb
from pseudoris_cli.execution.prefetch import load_image
from pseudoris_cli.execution.tasks import LoadedImage, UnreadImage
from pseudoris_cli.sources.folder import Folder

MAX_PIXELS = 40_000_000
MEGABYTE = 1 << 20
GOOD, WRONG = list(odd_images()), list(bad_images())


@pytest.mark.parametrize("odd", GOOD, ids=lambda odd: odd.name)
def test_odd_images_are_decoded_exactly(odd: Odd) -> None:
    found = decode_rgb(odd.data, MAX_PIXELS)
    assert (found.shape, found.dtype) == (odd.pixels.shape, np.uint8)
    assert np.abs(found.astype(int) - odd.pixels.astype(int)).max() <= odd.tolerance


@pytest.mark.parametrize("bad", WRONG, ids=lambda bad: bad.name)
def test_bad_images_are_refused_with_a_reason(bad: Bad) -> None:
    with pytest.raises(UndecodableImage, match=bad.reason) as refusal:
        decode_rgb(bad.data, MAX_PIXELS)
    assert len(str(refusal.value)) <= 200


def test_there_are_enough() -> None:
    names = [case.name for case in [*GOOD, *WRONG]]
    assert len(set(names)) == len(names) > 150


def test_no_bad_image_takes_much_memory_or_time() -> None:
    """All of them in one process: 200 MB above what it had, and 60 s of the processor."""

    def decode_all() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        before = _peak()
        for bad in WRONG:
            with pytest.raises(UndecodableImage):
                decode_rgb(bad.data, MAX_PIXELS)
        assert _peak() - before < 200 * MEGABYTE

    assert in_child(decode_all) == 0


def test_many_bits_take_little_more_memory_than_few() -> None:
    """16 million pixels of 16 bits: 32 MB of them and 48 of RGB; their arithmetic in one piece would take another 500."""
    from odd_images import save

    data = save(np.zeros((4000, 4000), np.uint16), "PNG", compress_level=1)

    def decode() -> None:
        before = _peak()
        assert decode_rgb(data, MAX_PIXELS).shape == (4000, 4000, 3)
        assert _peak() - before < 250 * MEGABYTE

    assert in_child(decode) == 0


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- files ----------------------------------------------------------------------------------------------------------


def check(folder: Path, expected: list[OddFile]) -> None:
    source = Folder(folder)
    listed = {ref.key: ref for ref in source.images()}
    assert sorted(listed) == sorted(file.key for file in expected)
    for file in expected:
        found = load_image(source, listed[file.key], MAX_PIXELS)
        if file.status == "done":
            assert isinstance(found, LoadedImage), file
        else:
            assert isinstance(found, UnreadImage), file
            assert (found.failure.status, found.failure.reason) == (file.status, file.reason)


def test_any_name_that_a_disk_can_hold(tmp_path: Path) -> None:
    check(tmp_path, list(lay_names(tmp_path)))
    assert len(list(tmp_path.iterdir())) == len(NAMES)


def test_links_pipes_sockets_and_folders(tmp_path: Path) -> None:
    signal.alarm(60)  # a pipe must not be waited for
    try:
        check(tmp_path, list(lay_natures(tmp_path)))
    finally:
        signal.alarm(0)


def test_keys_lead_back_to_their_files(tmp_path: Path) -> None:
    list(lay_names(tmp_path))
    source = Folder(tmp_path)
    found = {os.fsencode(source.path(ref.key).name) for ref in source.images()}
    assert found == set(NAMES)
    assert all(re.fullmatch(r"[^\ud800-\udfff]*", ref.key) for ref in source.images())
