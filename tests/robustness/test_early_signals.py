"""A signal at any line of the command's own first and last steps ends it quietly: no traceback, no half-made stream."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import gc, json, os, sys, tempfile
sign, words = int(sys.argv[1]), sys.argv[2:]
from pseudoris_cli import __main__ as entry
from pseudoris_cli.cli.app import app
try:
    app(words)  # imports what the children need
except (SystemExit, entry.PseudorisError):
    pass
watched = tuple(f"{entry.__file__.removesuffix('__main__.py')}{name}" for name in ("__main__.py", "cli/surroundings.py"))
signals = entry.restore_default_signals.__code__.co_filename
sys.argv = ["pseudoris", *words]

def hit_at(number):
    left = [number]
    def trace(frame, event, argument):
        if frame.f_code.co_filename not in (*watched, signals):
            return None
        left[0] -= 1
        if left[0] == -1:
            sys.settrace(None)
            frame.f_trace = None
            os.kill(os.getpid(), sign)
        return trace
    sys.settrace(trace)
    return left

gc.freeze()  # children end sooner
ends, number = [], 0
while True:
    said = tempfile.TemporaryFile()
    child = os.fork()
    if child == 0:
        os.dup2(said.fileno(), 2)
        left = hit_at(number)
        try:
            entry.main()
        finally:
            sys.settrace(None)
            if left[0] >= 0:
                os._exit(99)  # the command has fewer steps
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 99:
        break
    said.seek(0)
    ends.append((number, code, said.read().decode()))
    number += 1
sys.__stdout__.flush()
print("\\n" + json.dumps(ends))
"""


@pytest.mark.parametrize(
    ("sign", "words"), [(signal.SIGTERM, ["--version"]), (signal.SIGINT, ["status", "--work", "missing"])]
)
def test_signal_at_any_step_of_the_entry_point(sign: signal.Signals, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(int(sign)), *words],
        stdout=subprocess.PIPE,
        check=True,
    )
    ends = json.loads(done.stdout.decode().splitlines()[-1])
    assert len(ends) > 40  # lines, calls and returns
    assert {code for _, code, _ in ends} >= {-sign, 130}  # before the handlers, and while they are there
    for number, code, said in ends:
        assert code in (-sign, 130), (number, code, said)
        assert not any(word in said for word in ("Traceback", "Exception")), (number, code, said)
        assert said == "" if code == -sign else said.startswith("error: "), (number, code, said)
