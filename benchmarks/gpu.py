"""Everything that is to be known of a GPU, in one command that fits into ten minutes.

    python benchmarks/gpu.py --out DIR [--minutes 9] [--only STEP ...]      # or: make gpu
    python benchmarks/gpu.py --out DIR --tiny                               # small networks, on a CPU too: is the script fit?

Steps, each in a process of its own with a share of the time: environment, products, masks, proposals, captions, scores, pipeline,
trace. A step that runs out of time or fails keeps what it had measured, and the others go on. After every step DIR has
`results.json` and `section.md`, the section for benchmarks/RESULTS.md, which is printed at the end. It needs no network and no
checkpoint: weights are random, of full size, and pictures are rendered. Exits 1 where a step failed or what must be equal is not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests" / "support")]


@dataclass(frozen=True)
class Order:
    """What one step is asked: where its findings go, the size of the networks, the device, and how long it has."""

    name: str
    out: str
    tiny: bool
    device: str
    seconds: float


SHARES = {
    "environment": 2,
    "products": 3,
    "masks": 25,
    "proposals": 6,
    "captions": 28,
    "scores": 6,
    "pipeline": 18,
    "trace": 12,
}
"""Step -> percent of the minutes that it may take; what a step leaves goes to those after it."""


class Findings:
    """What a step has measured so far, on disk after every figure, so that a time box loses nothing."""

    def __init__(self, order: Order) -> None:
        self.order, self.path = order, Path(order.out) / f"{order.name}.json"
        self.end = time.monotonic() + order.seconds
        self.rows: list[dict[str, Any]] = []
        self.problems: list[str] = []

    def add(self, **row: Any) -> dict[str, Any]:
        """One line of the step's table."""
        self.rows.append(row)
        self._write()
        return row

    def problem(self, text: str) -> None:
        """Something is not as it must be; the command will exit 1."""
        self.problems.append(text)
        self._write()

    def time_for(self, seconds: float) -> bool:
        """Whether something that takes so long still fits."""
        return time.monotonic() + seconds < self.end

    def _write(self) -> None:
        self.path.write_text(json.dumps({"rows": self.rows, "problems": self.problems}))


def perform(order: Order) -> None:
    """One step, in this process."""
    import torch
    from gpu_steps import STEPS

    findings = Findings(order)
    findings._write()
    try:
        with torch.inference_mode():
            STEPS[order.name](findings)
    except Exception as error:
        traceback.print_exc()
        findings.problem(f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}")


def perform_apart(order: Order) -> None:
    """One step in a fresh process, ended when its time is over."""
    findings = Findings(order)
    log = Path(order.out) / f"{order.name}.log"
    with log.open("w") as file:
        command = [sys.executable, __file__, "--step", json.dumps(asdict(order))]
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=order.seconds).returncode
        except subprocess.TimeoutExpired:
            code = None
    if findings.path.exists():
        told = json.loads(findings.path.read_text())
        findings.rows, findings.problems = told["rows"], told["problems"]
    if code is None:
        findings.problem(f"stopped after its {order.seconds:.0f} s")
    elif code:
        findings.problem(f"its process ended with {code}: see {log.name}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for results.json, section.md and the logs")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--tiny", action="store_true", help="small networks, all steps in this process")
    parser.add_argument("--device", help="default: cuda, with --tiny cpu")
    parser.add_argument("--only", nargs="+", choices=SHARES, metavar="STEP", help=f"some of {', '.join(SHARES)}")
    parser.add_argument("--apart", action="store_true", help="with --tiny: processes of their own all the same")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.step:
        perform(Order(**json.loads(options.step)))
        return 0
    if options.out is None:
        parser.error("--out DIR is needed")
    device = options.device or ("cpu" if options.tiny else "cuda")
    if device.startswith("cuda") and not _is_there(device):
        print(f"{device} is not on this machine; --tiny tries the script on a CPU", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    return run(options, device)


def run(options: argparse.Namespace, device: str) -> int:
    """All steps within the minutes; the results after each."""
    from gpu_section import section

    end, names = time.monotonic() + options.minutes * 60, options.only or list(SHARES)
    results: dict[str, Any] = {}
    for number, name in enumerate(names):
        left = end - time.monotonic() - 2
        share = SHARES[name] / sum(SHARES[later] for later in names[number:])
        order = Order(name, str(options.out), options.tiny, device, max(left * share, 1.0))
        started = time.monotonic()
        print(f"{name} ({order.seconds:.0f} s at most)", file=sys.stderr, flush=True)
        (perform if options.tiny and not options.apart else perform_apart)(order)
        results[name] = json.loads((options.out / f"{name}.json").read_text())
        results[name]["seconds"] = round(time.monotonic() - started, 1)
        (options.out / "results.json").write_text(json.dumps(results, indent=1))
        (options.out / "section.md").write_text(section(results, options.tiny))
    print((options.out / "section.md").read_text())
    return int(any(found["problems"] for found in results.values()))


def _is_there(device: str) -> bool:
    import torch

    return torch.cuda.is_available() and int(device.partition(":")[2] or 0) < torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
