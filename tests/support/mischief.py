"""What can happen to the real command while it is at work. A call of the command server names one of these functions and gives
its argument; it is run in the command's process before main(), and what it returns is told of every durable step."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from trivial_stages import paint

Step = Callable[[str, bool], None]


def hang(name: str) -> None:
    """Reading this image never ends, as on a file server that is gone."""
    from pseudoris_cli.sources.base import FileReader

    read = FileReader.read

    def stuck(self: FileReader, key: str) -> bytes:
        if key == name:
            time.sleep(1000)
        return read(self, key)

    FileReader.read = stuck  # type: ignore[method-assign]


def change_images(stage: str) -> Step:
    """Once the first part of a stage is there: ../images/1.png becomes another picture, 2.png is deleted."""

    def act() -> None:
        paint(Path("../images/1.png"), 50, (48, 36))
        Path("../images/2.png").unlink()

    return _after_first_part(stage, act)


def turn_clocks(seconds: str) -> None:
    """From the third time that the clock is asked it is wrong by so many seconds, and every third time by as many more."""
    asked, honest = 0, time.time

    def wrong() -> float:
        nonlocal asked
        asked += 1
        return honest() + float(seconds) * (asked // 3)

    time.time = wrong


def fill_disk(argument: str) -> Step:
    """Once the first part of a stage is there, somebody else takes the disk, all but so many pages (`STAGE PAGES`)."""
    stage, pages = argument.split()

    def act() -> None:
        usage = os.statvfs(".")
        Path("ballast").write_bytes(bytes(max(0, usage.f_bavail - int(pages)) * usage.f_frsize))

    return _after_first_part(stage, act)


def _after_first_part(stage: str, act: Callable[[], None]) -> Step:
    done = False

    def seen(_step: str, _after: bool) -> None:
        nonlocal done
        if not done and any(Path("work", stage).glob("*/part-*")):
            done = True
            act()

    return seen
