"""The real command many times over: a process that has imported everything once and forks a child for each call.

A child runs `pseudoris_cli.__main__.main()` with its own argv, folder, output and durable-step watcher, and can be killed
without loss to the others. Random networks are built once and inherited. Used as a context manager:

    with CommandServer(scratch) as server:
        [[first, second]] = server.run([Job(folder, [Call(["masks", "--images", "img"], kill_at=7), Call(["masks"])])])
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from locations import REPOSITORY

AT_ONCE = 2
CONFIG = REPOSITORY / "configs" / "random.yaml"
SETTINGS = ("source.part_size=1", "masks.max_per_image=2", "captions.top_k=[5]", "captions.top_p=[0.5]")
SETTINGS += ("captions.max_length=5", "captions.min_length=2")
SMALL = ["--config", str(CONFIG), "--device", "cpu", *(word for text in SETTINGS for word in ("--set", text))]
"""Flags of a run with tiny random networks, one image a part."""


@dataclass(frozen=True)
class Call:
    """One call of the command. `kill_at`: send `sign` to itself at that moment, two moments for each durable step;
    `kill_after`: send it from outside after so many seconds (again after `again` seconds, if given). `mischief`: the name of
    a function in mischief.py, a colon and its argument."""

    argv: list[str]
    kill_at: int | None = None
    kill_after: float | None = None
    again: float | None = None
    sign: int = signal.SIGKILL
    uid: int | None = None
    mischief: str | None = None


@dataclass(frozen=True)
class Job:
    """Calls one after the other in one folder."""

    folder: str
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Done:
    """How a call ended: exit code (minus the signal that killed it), output, the durable steps it came past, seconds."""

    code: int
    out: str
    err: str
    steps: list[str]
    seconds: float


class CommandServer:
    """The client's side."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def __enter__(self) -> CommandServer:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.scratch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", "the command server did not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)

    def run(self, jobs: Sequence[Job]) -> list[list[Done]]:
        """Do jobs, several at once; their results in order."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return [[Done(**done) for done in calls] for calls in answer]

    def call(self, folder: Path, *argv: str | Path, **how: Any) -> Done:
        """One call."""
        return self.run([Job(str(folder), [Call([str(word) for word in argv], **how)])])[0][0]


# --- the server's side ----------------------------------------------------------------------------------------------


def _serve(scratch: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")  # stdout itself belongs to the commands
    os.dup2(2, 1)
    _warm_up(scratch / "warm")
    gc.collect()
    gc.freeze()  # the collector of a child would touch, and so copy, every page
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        jobs = [Job(job["folder"], [Call(**call) for call in job["calls"]]) for job in json.loads(line)]
        print(json.dumps(_run_jobs(scratch, jobs)), file=answers, flush=True)


def _run_jobs(scratch: Path, jobs: list[Job]) -> list[list[dict[str, Any]]]:
    active: dict[int, Path] = {}
    results: dict[Path, Any] = {}
    places = [scratch / f"job-{number}" for number in range(len(jobs))]
    for place, job in zip(places, jobs, strict=True):
        while len(active) >= AT_ONCE:
            _reap(active, results)
        if pid := os.fork():
            active[pid] = place
        else:
            place.with_suffix(".json").write_text(
                json.dumps([_run_call(place, Path(job.folder), c) for c in job.calls])
            )
            os._exit(0)
    while active:
        _reap(active, results)
    return [results[place] for place in places]


def _reap(active: dict[int, Path], results: dict[Path, Any]) -> None:
    pid, _ = os.wait()
    place = active.pop(pid)
    results[place] = json.loads(place.with_suffix(".json").read_text())


def _run_call(place: Path, folder: Path, call: Call) -> dict[str, Any]:
    names = [place.with_suffix(f".{kind}") for kind in ("out", "err", "steps")]
    for name in names:
        name.write_text("")
        name.chmod(0o666)
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        _become(names, folder, call)
    for delay in (call.kill_after, call.again):
        if delay is not None:
            time.sleep(delay)
            os.kill(pid, call.sign)  # still ours to kill: it has not been waited for
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out, err, steps = (name.read_text(errors="replace") for name in names)
    seconds = time.monotonic() - started
    return {"code": code, "out": out, "err": err, "steps": steps.splitlines(), "seconds": seconds}


def _become(names: list[Path], folder: Path, call: Call) -> None:
    """Turn this process into the command; does not return."""
    import mischief
    from trivial_stages import kill_at, watch_steps

    from pseudoris_cli.__main__ import main

    code = 71
    try:
        os.chdir(folder)
        for number, name in ((1, names[0]), (2, names[1])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)
        steps = os.open(names[2], os.O_WRONLY | os.O_APPEND)
        if call.uid is not None:
            os.setgroups([])
            os.setgid(call.uid)
            os.setuid(call.uid)
        die = kill_at(-1 if call.kill_at is None else call.kill_at, call.sign)

        name, _, argument = (call.mischief or "").partition(":")
        told = getattr(mischief, name)(argument) if name else None

        def seen(step: str, after: bool) -> None:
            os.write(steps, f"{'after' if after else 'before'} {step}\n".encode())
            if told:
                told(step, after)
            die(step, after)

        watch_steps(seen)
        sys.argv = ["pseudoris", *call.argv]
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    except BaseException:
        traceback.print_exc()  # what a user would see of an error that nobody foresaw
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _warm_up(folder: Path) -> None:
    """Import what the stages import, and build the networks once; the forked children inherit both."""
    import torch
    from trivial_stages import paint

    from pseudoris_cli.__main__ import main
    from pseudoris_cli.backends import registry as backends

    torch.set_num_threads(1)
    built: dict[str, Any] = {}
    build = backends.load

    def load(settings: Any, numerics: Any, device: str) -> Any:
        name = f"{settings.model_dump_json()} {numerics} {device}"
        if name not in built:
            built[name] = build(settings, numerics, device)
        return built[name]

    backends.load = load
    paint(folder / "images" / "1.png", random.Random(1).randrange(99), (48, 36))
    sys.argv = ["pseudoris", "run", "--work", str(folder / "work"), "--out", str(folder / "out"), "-q", *SMALL]
    sys.argv += ["--images", str(folder / "images")]
    with suppress(SystemExit):
        main()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(
            number, signal.SIG_DFL
        )  # a child that is hit before its own main() runs must not go on half forked


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
