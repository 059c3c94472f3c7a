"""A part counts only if it was made from the part that is now before it, up to the masks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pseudoris_cli.storage.lineage import Lineage


class Listed:
    """A manifest of one part, with the digest of its file and of what it was made from."""

    def __init__(self, digest: str, upstream: str | None, intact: bool = True) -> None:
        self.entries = {3: SimpleNamespace(file=SimpleNamespace(sha256=digest), upstream=upstream)}
        self.intact, self.looks = intact, 0

    def is_intact(self, entry: Any) -> bool:
        self.looks += 1
        return self.intact


def chain(**changes: Listed) -> dict[str, Any]:
    return {"masks": Listed("aa", None), "captions": Listed("bb", "aa"), "scores": Listed("cc", "bb+1+2")} | changes


def test_a_whole_chain_holds_and_is_looked_at_once() -> None:
    manifests = chain()
    lineage = Lineage(manifests)
    for _ in range(2):
        for stage, manifest in manifests.items():
            assert lineage.entry(stage, 3) is manifest.entries[3]
    assert [manifest.looks for manifest in manifests.values()] == [1, 1, 1]
    assert lineage.entry("masks", 4) is None


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"scores": Listed("cc", "bx")}, ["masks", "captions"]),
        ({"scores": Listed("cc", "b")}, ["masks", "captions"]),
        ({"scores": Listed("cc", None)}, ["masks", "captions"]),
        ({"scores": Listed("cc", "bb", intact=False)}, ["masks", "captions"]),
        ({"captions": Listed("bb", "aa", intact=False)}, ["masks"]),
        ({"masks": Listed("ab", None)}, ["masks"]),  # made anew, and came out otherwise
        ({"masks": Listed("aa", None, intact=False)}, []),
    ],
)
def test_a_chain_holds_up_to_its_first_fault(changes: dict[str, Listed], holds: list[str]) -> None:
    lineage = Lineage(chain(**changes))
    assert [stage for stage in ("scores", "captions", "masks") if lineage.entry(stage, 3)] == holds[::-1]
