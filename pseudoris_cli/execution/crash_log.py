"""Which parts and images were at work when a process died, so that what kills it is found instead of tried for ever."""

from __future__ import annotations

import faulthandler
import json
import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from pseudoris_cli.execution.death_causes import TIMED_OUT, cause_of_death, memory_kills

QUARANTINE_AFTER = 2
ONE_BY_ONE_AFTER = 4
KILLED_ALONE = "killed the process when it was tried alone"
"""How the reason of an image that was given up begins; later runs try such images once more."""


class CrashLog:
    """`running-<writer>.json` of a version; it exists only while its writer runs, or after it died.

    A part that was at work when the process died `QUARANTINE_AFTER` times is quarantined: each of its images is first tried
    in isolation, and is named here meanwhile; the image that kills the process again (a poison image) is given up. A part
    that dies `ONE_BY_ONE_AFTER` times although every image alone lives is then run one image at a time.

    Causes of deaths are told apart as far as the kernel says: memory that ran out, a crash (a stack was dumped beside this
    file), or a signal from outside, as batch systems send it.
    """

    def __init__(self, folder: Path, writer: str, pending: Collection[int]) -> None:
        """`pending`: the parts still to do; what is recorded of others is dropped."""
        self.path = folder / f"running-{writer}.json"
        self.temporary = folder / f".running-{writer}.json.tmp"
        self.deaths: dict[int, int] = {}
        self.poison: dict[str, int] = {}
        self.working: list[int] = []
        self.isolated: tuple[str, int] | None = None
        self.causes: dict[str, str] = {}
        self._timed_out = False
        self._memory: dict[str, Any] = {}
        self._dump = folder / f"running-{writer}.fault"
        self._dump_file: FileIO | None = None
        self._was_on = False
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # none there, or a damaged one
            self._recover(frozenset(pending))

    def _recover(self, pending: frozenset[int]) -> None:
        """Take over what the last process left: whatever it was working on, it died of."""
        state = json.loads(self.path.read_text(encoding="utf-8"))
        deaths = Counter({int(part): int(times) for part, times in state["deaths"].items()})
        deaths.update(state["working"])
        poison = dict([*state["killers"].items(), *([state["image"]] if state["image"] else [])])
        self.deaths = {part: times for part, times in deaths.items() if part in pending}
        self.poison = {key: part for key, part in poison.items() if part in pending}
        self.causes = {**state.get("causes", {})}
        if state["image"]:
            crashed = self._dump.exists() and self._dump.stat().st_size > 0
            cause = TIMED_OUT if state.get("timed_out") else cause_of_death(state.get("memory", {}), crashed)
            self.causes[state["image"][0]] = cause

    def _watch(self) -> None:
        """Let Python dump its stack where a crash is told by, from now on."""
        if self._dump_file is None:
            self._dump_file = FileIO(self._dump, "w")
            self._was_on = faulthandler.is_enabled()
            faulthandler.enable(self._dump_file, all_threads=False)

    def begin(self, part: int) -> None:
        """A part is being read or worked on."""
        self._watch()
        if part not in self.working:
            self.working.append(part)
            self._write()

    def isolate(self, key: str | None, part: int) -> None:
        """A single image is being tried in isolation; None when it lived."""
        self.isolated = (key, part) if key else None
        self._memory = memory_kills() if key else {}
        self._write()

    def time_out(self) -> None:
        """The process is about to be ended because what it works on takes too long."""
        self._timed_out = True
        self._write()

    def died(self, part: int, key: str | None = None) -> None:
        """A worker in another process died of a part, or of a single image of it that was being tried."""
        self.deaths[part] = self.deaths.get(part, 0) + 1
        if key:
            self.poison[key] = part
        if part in self.working:
            self.working.remove(part)
        self._write()

    def finish(self, part: int) -> None:
        """A part's work is done."""
        if part in self.working:
            self.working.remove(part)
        self.deaths.pop(part, None)
        self.poison = {key: of for key, of in self.poison.items() if of != part}
        self._write()

    def close(self) -> None:
        """An orderly end: nothing was at work."""
        self.working, self.isolated = [], None
        if self._dump_file is not None:
            faulthandler.disable()
            if self._was_on:  # by -X faulthandler, say; where it wrote to cannot be asked, and is nearly always stderr
                faulthandler.enable(2)  # sys.__stderr__ may be detached by now
            self._dump_file.close()
            self._dump_file = None
        self._dump.unlink(missing_ok=True)
        if self.deaths or self.poison:
            self._write()
        else:
            self.path.unlink(missing_ok=True)
            self.temporary.unlink(missing_ok=True)

    def poison_images(self, part: int) -> dict[str, str]:
        """The images of a part that are given up, with the reason."""
        return {key: self._reason(key) for key, of in self.poison.items() if of == part}

    def _reason(self, key: str) -> str:
        cause = self.causes.get(key)
        return f"{KILLED_ALONE} ({cause})" if cause else KILLED_ALONE

    def is_quarantined(self, part: int) -> bool:
        """Whether the images of the part must be tried in isolation first."""
        return self.deaths.get(part, 0) >= QUARANTINE_AFTER

    def runs_one_by_one(self, part: int) -> bool:
        """Whether the part must be run one image at a time."""
        return self.deaths.get(part, 0) >= ONE_BY_ONE_AFTER

    def _write(self) -> None:
        """No fsync: it must outlive the process, not the machine. The names in it are those of version 0.1."""
        state = {"deaths": self.deaths, "killers": self.poison, "working": self.working, "image": self.isolated}
        state |= {"causes": {key: cause for key, cause in self.causes.items() if key in self.poison}}
        state |= {"memory": self._memory, "timed_out": self._timed_out}
        self.temporary.write_text(json.dumps(state), encoding="utf-8")
        os.replace(self.temporary, self.path)
