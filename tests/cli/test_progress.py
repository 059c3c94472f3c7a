"""The line of progress on a terminal: whole where the terminal is narrow, and with a time left however slow the images are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from invoking import draw_pictures
from PIL import Image
from rich.console import Console as RichConsole

from pseudoris_cli import watching
from pseudoris_cli.backends import registry as backends
from pseudoris_cli.cli import console
from pseudoris_cli.execution.tasks import ImageResult, LoadedImage, PartInput, PartTask
from pseudoris_cli.method.scoring import score_images
from pseudoris_cli.records import CaptionCandidate, ImageRef, Mask, MaskedImage
from pseudoris_cli.rle import encode_rle
from pseudoris_cli.settings.resolve import resolve
from pseudoris_cli.stages.batching import run_batches


@dataclass
class Clock:
    """A time that passes when told."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def line(observer: console.ProgressObserver) -> str:
    """What a terminal of that width shows."""
    assert observer.progress is not None
    paper = RichConsole(file=io.StringIO(), color_system=None, width=console.err.width)
    with paper.capture() as captured:
        paper.print(observer.progress.make_tasks_table(observer.progress.tasks))
    return captured.get().removesuffix("\n")


def observed(monkeypatch: pytest.MonkeyPatch, columns: int, clock: Clock) -> console.ProgressObserver:
    terminal = console.Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=columns, get_time=clock, soft_wrap=True
    )
    monkeypatch.setattr(console, "err", terminal)
    monkeypatch.setattr(console.time, "monotonic", clock)
    return console.ProgressObserver()


@pytest.mark.parametrize("columns", [80, 120])
def test_count_and_time_left_of_ten_million_images_fit(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    clock = Clock()
    observer = observed(monkeypatch, columns, clock)
    observer.begin("captions", 10_000_000, 1_234_567, [])
    observer.failed = 12
    for _ in range(3):
        clock.now += 1
        observer.within(1, 44)
    try:
        text = line(observer)
        assert not {"\n", "…"} & set(text)
        assert " 1,234,570/10,000,000 images 1/s" in text
        assert text.endswith(" 12 failed 101 d 10 h left")
        assert ("44 captions/s" in text) == (columns == 120), "what a narrow terminal has no room for"
    finally:
        observer.end()


def test_nothing_done_yet_has_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    observer = observed(monkeypatch, 80, clock)
    observer.begin("masks", 12, 0, [])
    observer.end()  # as where nothing is a terminal: a line now and then
    clock.now += 100
    assert "left" not in observer._rate()
    observer.worked = 1
    assert "about" in observer._rate()


def test_images_slower_than_half_a_minute_have_a_time_left_without_the_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    observer = observed(monkeypatch, 100, clock)
    observer.begin("masks", 10, 0, [])
    try:
        clock.now += 200  # loading
        observer.within(1, 5)
        for _ in range(3):
            clock.now += 40
            observer.within(1, 5)
        assert line(observer).endswith(" 4/10 images 0.0125/s 4 min 00 s left")
    finally:
        observer.end()


def test_the_first_batch_moves_and_time_passes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four images that share a batch, five minutes each: nothing but the batch itself tells of them."""
    clock = Clock()
    observer = observed(monkeypatch, 100, clock)
    observer.begin("masks", 1000, 0, [])
    try:
        clock.now += 65
        assert line(observer).startswith(("⠋ ", "⠙ ", "⠹ ", "⠸ ", "⠼ ", "⠴ ", "⠦ ", "⠧ ", "⠇ ", "⠏ "))
        assert " masks, loading 1 min 05 s " in line(observer)
        part = PartInput(
            PartTask(0, (), frozenset(), {}, None), iter([loaded(n) for n in range(4)]), {}, observer.within
        )
        seen = []

        def work(batch: list[LoadedImage]) -> list[ImageResult]:
            for step in range(1, 21):
                clock.now += 60
                watching.tell(step / 20)
                seen.append(line(observer))
            return [ImageResult() for _ in batch]

        run_batches(part, 4, work, "masks")
        assert " masks 2 min 05 s " in seen[0]
        assert " 0.2/1,000 images " in seen[0]
        assert " 1.8/1,000 images " in seen[8]
        assert " 3.9/1,000 images " in seen[-1], "not done before its rows are there"
        assert " left" in seen[9]
        assert " 4/1,000 images " in line(observer)
    finally:
        observer.end()


def loaded(number: int) -> LoadedImage:
    pixels = np.zeros((2, 2, 3), np.uint8)
    return LoadedImage(ImageRef(f"{number}.png", number, f"{number}.png"), pixels, None, "")


@pytest.mark.parametrize("stage", ["masks", "captions", "scores"])
def test_networks_tell_how_far_they_are_within_a_batch(stage: str, tmp_path: Path) -> None:
    """More often than there are images, and never backwards, for the networks of every stage."""
    draw_pictures(tmp_path / "images", 2)
    told: list[float] = []
    with watching.watched(told.append):
        done = one_batch(stage, tmp_path / "images")
    assert done
    assert len(told) > len(list((tmp_path / "images").iterdir()))
    assert told == sorted(told)
    assert 0 <= told[0] < 0.5 < told[-1] <= 1


def one_batch(stage: str, folder: Path) -> object:
    """A batch of two images through the small networks of a stage."""
    images = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    mask = np.zeros(images[0].shape[:2], bool)
    mask[20:90, 20:90] = True
    masks = tuple(
        Mask(number, encode_rle(np.roll(mask, 40 * number, 1)), (20, 20, 70, 70), 4900, 0.9, 0.9) for number in (0, 1)
    )
    settings = resolve("random").settings
    if stage == "masks":
        return backends.load(settings.masks.sam, settings.numerics, "cpu").segment(images)
    masked = [MaskedImage(f"{number}.png", image, masks) for number, image in enumerate(images)]
    if stage == "captions":
        return backends.load(settings.captions, settings.numerics, "cpu").caption(masked)
    texts = [[CaptionCandidate(m, n, f"a thing of number {m} {n}") for m in (0, 1) for n in range(40)] for _ in masked]
    loaded = [backends.load(part, settings.numerics, "cpu") for part in (settings.filter.scorer, settings.filter.nouns)]
    return score_images(masked, texts, *loaded, settings.filter)
