"""When to stop asking a server of which nothing usable comes back."""

from __future__ import annotations

from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.errors import EnvironmentStop

HOPELESS = 24
"""So many answers in a row that are of no use, and no other yet: this model or prompt will not do."""
HOPELESS_PART = 4
"""The same at the end of a part."""


class Patience:
    """Counts answers until the first that is of use."""

    def __init__(self, client: Client, wanted: str, advice: str) -> None:
        """`wanted`: what did not come ("... masks got a usable expression"), `advice`: where to look."""
        self._client, self._wanted, self._advice = client, wanted, advice
        self._useless, self._useful = 0, False
        self._failure, self._raw = "", ""

    def heard(self, failure: str | None, raw: str = "") -> None:
        """An answer: of use, or why not and what it said. EnvironmentStop (exit 1) once there is no hope."""
        if failure is None:
            self._useful = True
        else:
            self._useless += 1
            self._failure, self._raw = failure, raw
        self._look(HOPELESS)

    def at_end(self) -> None:
        """The end of a part: fewer answers are enough to know. EnvironmentStop (exit 1) as in `heard`."""
        self._look(HOPELESS_PART)

    def _look(self, enough: int) -> None:
        if self._useful or self._useless < enough:
            return
        said = f"; the last answer began: {self._raw[:120]!r}" if self._raw else ""
        raise EnvironmentStop(
            f"none of the first {self._useless} {self._wanted} at {self._client.address.url}: {self._failure}{said}\n"
            f"{self._advice}; `pseudoris doctor --endpoint` shows what the server can do"
        )
