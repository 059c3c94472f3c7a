"""Whether decoding pictures holds Python's lock: how often another thread wakes up meanwhile. `python benchmarks/decoding.py`

A thread sleeps half a millisecond again and again while this one decodes. Where the lock is held it wakes up once in five
milliseconds, or not before a call is over. Other work on the machine delays it too, so rows are to be compared with the controls
of the same run: a digest, which lets go of the lock, and a power, which holds it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from pseudoris_cli.codecs.image_decode import decode_rgb

PICTURE = Path(__file__).parents[1] / "tests" / "fixtures" / "cutler" / "demo3.png"
KINDS = (
    ("JPEG", 640, 480),
    ("JPEG", 4000, 3000),
    ("PNG", 640, 480),
    ("PNG", 4000, 3000),
    ("WEBP", 1600, 1200),
    ("TIFF", 1600, 1200),
)
TWO_TO_MANY = (1 << 300_000) - 1


def encoded(kind: str, width: int, height: int) -> bytes:
    """The photograph of the fixtures at another size and in another format."""
    file = io.BytesIO()
    Image.open(PICTURE).convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(file, kind)
    return file.getvalue()


def watched(work: Callable[[], Any], seconds: float) -> tuple[float, float, float]:
    """Processor ms of a call, and of another thread: wake-ups a second and its longest wait in ms."""
    waits: list[float] = []
    over = threading.Event()

    def wake() -> None:
        last = time.perf_counter()
        while not over.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            waits.append(now - last)
            last = now

    thread = threading.Thread(target=wake)
    thread.start()
    start, used, calls = time.perf_counter(), time.thread_time(), 0
    while time.perf_counter() - start < seconds:
        work()
        calls += 1
    used, wall = time.thread_time() - used, time.perf_counter() - start
    over.set()
    thread.join()
    return 1000 * used / calls, len(waits) / wall, 1000 * max(waits)


def main() -> None:
    """Print a Markdown table: of each row the run with the most wake-ups, and the shortest of the longest waits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    order = parser.parse_args()
    blob = os.urandom(8 << 20)
    rows: dict[str, Callable[[], Any]] = {
        "control: sha256, lock released": lambda: hashlib.sha256(blob).digest(),
        "control: a power, lock held": lambda: pow(3, 300_000, TWO_TO_MANY),
    }
    rows |= {f"{k} {w} x {h}": partial(decode_rgb, encoded(k, w, h), 10**9) for k, w, h in KINDS}
    runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in rows}
    for _ in range(order.rounds):
        for name, work in rows.items():
            runs[name].append(watched(work, order.seconds))
    print("| while | processor ms a call | wake-ups a second | longest wait, ms |\n|---|---|---|---|")
    for name, found in runs.items():
        cpu, wakes = min(one[0] for one in found), max(one[1] for one in found)
        print(f"| {name} | {cpu:.1f} | {wakes:.0f} | {min(one[2] for one in found):.0f} |")


if __name__ == "__main__":
    main()
