"""Text for people: names that others chose, made fit for a terminal, and the likeliest of some known names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def visible(text: str, keep: str = "\n") -> str:
    """The text with all that a terminal would act on, or that is no text, written as an escape; `keep` stays as it is.

    A file may be called anything: `ESC[2J` would clear the screen, a newline would forge a line of the list.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def nearest(name: str, known: Iterable[str]) -> str:
    """The question that ends a message about an unknown name; empty where nothing known is like it."""
    near = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""
