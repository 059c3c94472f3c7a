"""A soak: hundreds of kills of the real command at random moments, in every stage; nothing committed may be lost.

    python benchmarks/soak.py [--kills 240] [--images 8] [--seed 0]

Each series calls one command (masks, captions, filter, export, or all four by `run`) again and again on one work directory
and stops every call at a moment drawn from the time that it takes: SIGKILL, SIGTERM, SIGINT, or SIGINT twice. After each
stop every part that a manifest lists is read and its digest compared, and must be the one that was there before; at the end
of a series the command runs undisturbed, and rows, files and exports must be those of a run that nobody disturbed. Tiny
random networks, one image a part. Exits with an AssertionError at the first thing that is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from command_server import CommandServer
from kill_series import BEFORE, KINDS, Unbroken, run_series

PER_SERIES = 4
COLUMNS = ("kills", "broken off", "finished all the same", "signal swallowed", "parts kept", "checked to the end")
GIVEN_UP = "images given up, done by --retry-failed"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=240, help="stops in all, shared by kinds and commands")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds = [(command, kind) for command in BEFORE for kind in KINDS]
    each = -(-options.kills // len(kinds))
    sizes = [PER_SERIES] * (each // PER_SERIES) + ([each % PER_SERIES] if each % PER_SERIES else [])
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="pseudoris-soak-", dir=memory))
    found: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    started = time.monotonic()
    try:
        with CommandServer(folder / "server") as server:
            unbroken = Unbroken.make(folder / "commands", server, options.images)
            for number, size in enumerate(sizes):
                plan = [(command, kind, size) for command, kind in kinds]
                for one in run_series(server, unbroken, plan, seed=options.seed * 1000 + number):
                    found[one.kind.name, one.command] += one.found
                print(f"{sum(c['kills'] for c in found.values())} stops", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(folder)
    _print(found, time.monotonic() - started)
    return 0


def _print(found: dict[tuple[str, str], Counter[str]], seconds: float) -> None:
    print("| signal | command | " + " | ".join((*COLUMNS, GIVEN_UP)) + " |")
    print("|---|---|" + "---|" * (len(COLUMNS) + 1))
    total: Counter[str] = Counter()
    for (kind, command), counts in found.items():
        total += counts
        print(f"| {kind} | {command} | " + " | ".join(str(counts[name]) for name in (*COLUMNS, GIVEN_UP)) + " |")
    print("| all | all | " + " | ".join(str(total[name]) for name in (*COLUMNS, GIVEN_UP)) + " |")
    print(
        f"\n{seconds:.0f} s; nothing that was committed was lost, and every series ended with the rows of an unbroken run"
    )


if __name__ == "__main__":
    sys.exit(main())
