"""Names that other people chose, on their way to a terminal."""

from __future__ import annotations


def visible(text: str, keep: str = "\n") -> str:
    """The text with all that a terminal would act on, or that is no text, written as an escape; `keep` stays as it is.

    A file may be called anything: `ESC[2J` would clear the screen, a newline would forge a line of the list.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
