"""What a process died of, as far as the kernel tells: memory that ran out, a crash, or a signal from outside."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

OUT_OF_MEMORY, CRASH, OUTSIDE = "out of memory", "crash", "killed from outside"
TIMED_OUT = "took longer than its time limit"
CRASH_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


def memory_kills() -> dict[str, Any]:
    """How often the kernel has killed for want of memory since this boot; {} where it does not say (only Linux does)."""
    try:
        counts = dict(line.split() for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return {"boot": boot, "kills": int(counts["oom_kill"])}
    except (OSError, ValueError, KeyError):
        return {}


def cause_of_death(memory_before: dict[str, Any], crashed: bool) -> str:
    """What a process died of that had noted `memory_kills` before; `crashed`: it left the traces of a crash."""
    if memory_ran_out_since(memory_before):
        return OUT_OF_MEMORY
    return CRASH if crashed else OUTSIDE


def memory_ran_out_since(before: dict[str, Any]) -> bool:
    """Whether the kernel has killed for want of memory since `before` was noted."""
    now = memory_kills()
    return bool(now) and now.get("boot") == before.get("boot") and now["kills"] > before.get("kills", now["kills"])
