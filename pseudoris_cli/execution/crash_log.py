"""Which parts and images were at work when a process died, so that what kills it is found instead of tried for ever."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

SUSPECT_AFTER = 2
SINGLY_AFTER = 4


class Breadcrumb:
    """`running-<writer>.json` of a version; it exists only while its writer runs, or after it died.

    A part that was at work when the process died `SUSPECT_AFTER` times is first tried image by image, each one named here;
    the image that kills again is given up. A part that dies although every image alone lives is then run singly.
    """

    def __init__(self, folder: Path, writer: str, pending: Collection[int]) -> None:
        """`pending`: the parts still to do; what is remembered of others is dropped."""
        self.path = folder / f"running-{writer}.json"
        self.temporary = folder / f".running-{writer}.json.tmp"
        self.deaths: dict[int, int] = {}
        self.killers: dict[str, int] = {}
        self.working: list[int] = []
        self.image: tuple[str, int] | None = None
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # none there, or a damaged one
            self._recall(frozenset(pending))

    def _recall(self, pending: frozenset[int]) -> None:
        """Take over what the last process left: all that it was at, it died of."""
        state = json.loads(self.path.read_text(encoding="utf-8"))
        deaths = Counter({int(part): int(times) for part, times in state["deaths"].items()})
        deaths.update(state["working"])
        killers = dict([*state["killers"].items(), *([state["image"]] if state["image"] else [])])
        self.deaths = {part: times for part, times in deaths.items() if part in pending}
        self.killers = {key: part for key, part in killers.items() if part in pending}

    def begin(self, part: int) -> None:
        """A part is being read or worked on."""
        if part not in self.working:
            self.working.append(part)
            self._write()

    def trying(self, key: str | None, part: int) -> None:
        """A single image is being tried; None when it lived."""
        self.image = (key, part) if key else None
        self._write()

    def died(self, part: int, key: str | None = None) -> None:
        """A worker in another process died of a part, or of a single image of it that was being tried."""
        self.deaths[part] = self.deaths.get(part, 0) + 1
        if key:
            self.killers[key] = part
        if part in self.working:
            self.working.remove(part)
        self._write()

    def finish(self, part: int) -> None:
        """A part's work is done."""
        if part in self.working:
            self.working.remove(part)
        self.deaths.pop(part, None)
        self.killers = {key: of for key, of in self.killers.items() if of != part}
        self._write()

    def close(self) -> None:
        """An orderly end: nothing was at work."""
        self.working, self.image = [], None
        if self.deaths or self.killers:
            self._write()
        else:
            self.path.unlink(missing_ok=True)
            self.temporary.unlink(missing_ok=True)

    def killers_of(self, part: int) -> dict[str, str]:
        """The images of a part that are given up, with the reason."""
        return {key: "killed the process when it was tried alone" for key, of in self.killers.items() if of == part}

    def is_suspect(self, part: int) -> bool:
        """Whether the part must be tried image by image first."""
        return self.deaths.get(part, 0) >= SUSPECT_AFTER

    def is_deadly(self, part: int) -> bool:
        """Whether the part must be run singly."""
        return self.deaths.get(part, 0) >= SINGLY_AFTER

    def _write(self) -> None:
        """No fsync: it must outlive the process, not the machine."""
        state = {"deaths": self.deaths, "killers": self.killers, "working": self.working, "image": self.image}
        self.temporary.write_text(json.dumps(state), encoding="utf-8")
        os.replace(self.temporary, self.path)
