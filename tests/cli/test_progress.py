"""The line of progress on a terminal: whole where the terminal is narrow, and with a time left however slow the images are."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console as RichConsole

from pseudoris_cli.cli import console


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
