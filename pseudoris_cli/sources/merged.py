"""The images of several work directories (`pseudoris merge`): each key begins with the label of the one that it is from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pseudoris_cli.errors import UsageError
from pseudoris_cli.records import ImageRef
from pseudoris_cli.sources.base import FileReader, Source, Stamp
from pseudoris_cli.storage.merge import labelled


class Merged(FileReader):
    """Sources by label. What a key means is the business of the source that it belongs to."""

    def __init__(self, root: Path, sources: dict[str, Source], options: dict[str, str]) -> None:
        super().__init__(root)
        self.sources, self.options = sources, options

    def keep_index_in(self, folder: Path) -> None:
        """Each source keeps its own."""
        for label, source in self.sources.items():
            if keep := getattr(source, "keep_index_in", None):
                keep(folder / label)

    def images(self) -> Iterator[ImageRef]:
        """Every image of each source, in the order in which they were merged."""
        for label, source in self.sources.items():
            for image in source.images():
                yield labelled(image, label)

    def path(self, key: str) -> Path:
        """The file of a key. UsageError if its source stores images inside another file."""
        source, own = self._split(key)
        if not isinstance(source, FileReader):
            raise UsageError(f"{key} is stored inside another file and cannot be linked. Use --images copy or none")
        return source.path(own)

    def stamp(self, key: str) -> Stamp | None:
        """Of the source that the key belongs to."""
        source, own = self._split(key) if key.partition("/")[0] in self.sources else (None, key)
        return source.stamp(own) if source else None

    def expect(self, key: str) -> None:
        """That an image will be read soon, said to the source that it belongs to if it wants to know."""
        source, own = self._split(key) if key.partition("/")[0] in self.sources else (None, key)
        if expect := getattr(source, "expect", None):
            expect(own)

    def read(self, key: str) -> bytes:
        """From the source that the key belongs to."""
        source, own = self._split(key)
        return source.read(own)

    def _split(self, key: str) -> tuple[Source, str]:
        label, _, own = key.partition("/")
        if label not in self.sources:
            raise FileNotFoundError(f"no source is called {label!r}")
        return self.sources[label], own


def open_source(root: Path, options: dict[str, Any], image_root: Path | None) -> Merged:
    """`options`: label -> the description of a source, as JSON. `merge` writes them; nothing else makes such a source."""
    from pseudoris_cli.sources.registry import open_source as open_described

    if image_root is not None:
        raise UsageError("--image-root: these are images of several sources; merge again from where they are now")
    return Merged(root, {label: open_described(json.loads(one)) for label, one in options.items()}, options)
