"""The words of a request. One text for each view and style; a file of the user's may take the place of the instruction."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Literal

from pseudoris_cli.errors import UsageError
from pseudoris_cli.prompting import overlay
from pseudoris_cli.prompting.views import Shown, View

Style = Literal["free", "refcoco", "refcoco+", "refcocog"]
KINDS = ("attribute", "position", "relation", "action", "other")
BUILT_IN = "refer"
FIELDS = ("number", "marked", "candidates", "language", "pictures", "style", "form")

_PICTURES: dict[str, str] = {
    "marks+crop": (
        "Image 1 is the whole picture. A white line goes around each of $marked objects, and each has a number. "
        "The target is object $number; the line around it is the thick one. Image 2 shows the target and what is near it, "
        "without any lines or numbers."
    ),
    "contour+crop": (
        "Image 1 is the whole picture; a white line goes around the target. Image 2 shows the target and what is near it, "
        "without the line."
    ),
    "box+crop": (
        "Image 1 is the whole picture; a white rectangle goes around the target. Image 2 shows the target and what is near "
        "it, without the rectangle."
    ),
    "crop": "The image is cut from a larger picture; the target is the object in its middle.",
    "rgba": "The image has an alpha channel: the target is what is opaque.",
}
_STYLES: dict[str, str] = {
    "free": "Write as people point things out to each other: from a few words to a short sentence.",
    "refcoco": "Keep each to 2 to 6 words. Position in the picture (left, right, middle, front, back) is welcome.",
    "refcoco+": (
        "Keep each to 2 to 6 words. Say nothing about where the target is: no left, right, top, bottom, middle, front, back, "
        "nearest or farthest. Describe how it looks and what it does."
    ),
    "refcocog": "Write a full phrase of 6 to 14 words for each, with details that tell the target apart.",
}
_REFER = Template(
    """$pictures

Write $candidates different referring expressions for the target, in $language. A stranger who sees the plain picture, without \
any lines or numbers, must know from each expression alone which object is meant.
- Each begins with what the target is (its noun), and is true.
- Each fits the target and no other object in the picture. Compare it with the objects most like it before you write.
- Vary what tells it apart: attribute (colour, size, material, clothing), position in the picture, relation to another object, \
action.
- The lines, numbers and images are not part of the scene: never speak of them.
- $style

$form"""
)
_FORM = Template(
    'Answer with JSON only: {"expressions": [{"text": "...", "kind": "attribute"}, ...]}, with $candidates entries; kind is one '
    "of attribute, position, relation, action, other."
)
_REPAIR = Template("That is not the answer asked for ($reason). $form")


@dataclass(frozen=True)
class Prompt:
    """The instruction of a run: the template, and what fills it for every target."""

    template: Template
    view: View
    style: Style
    language: str
    candidates: int

    def text(self, shown: Shown) -> str:
        """The instruction for one target."""
        numbers = {"number": shown.number or "", "marked": shown.marked}
        pictures = Template(_PICTURES[self.view]).substitute(numbers)
        fields = {"pictures": pictures, "language": self.language, "candidates": self.candidates}
        return self.template.substitute(fields | numbers | {"style": _STYLES[self.style], "form": self.form})

    @property
    def form(self) -> str:
        """How the answer is to be written."""
        return _FORM.substitute(candidates=self.candidates)

    def repair(self, reason: str) -> str:
        """What is said after an answer that cannot be used."""
        return _REPAIR.substitute(reason=reason, form=self.form)

    @property
    def digest(self) -> str:
        """What identifies words and pictures in a version."""
        parts = [self.template.template, _PICTURES[self.view], _STYLES[self.style], _FORM.template, _REPAIR.template]
        text = json.dumps([*parts, self.language, self.candidates, overlay.REVISION, KINDS])
        return hashlib.sha256(text.encode()).hexdigest()


def load_prompt(name: str, view: View, style: Style, language: str, candidates: int) -> Prompt:
    """The built-in prompt of a name, or one from a text file with fields such as $number (docs/vlm.md lists them).

    UsageError (exit 2) if there is no such file, or it has a field that nothing fills.
    """
    template = _REFER if name == BUILT_IN else _from_file(name)
    return Prompt(template, view, style, language, candidates)


def _from_file(name: str) -> Template:
    path = Path(name).expanduser()
    try:
        template = Template(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"captions.prompt={name}: neither {BUILT_IN!r} nor a text file that can be read ({error})"
        ) from error
    unknown = sorted(set(template.get_identifiers()) - set(FIELDS))
    if unknown or not template.is_valid():
        named = ", ".join(f"${field}" for field in unknown) or "a $ that begins no field; write $$ for the sign"
        raise UsageError(
            f"captions.prompt={name}: nothing fills {named}; there are {', '.join(f'${f}' for f in FIELDS)}"
        )
    if not template.template:
        raise UsageError(f"captions.prompt={name}: the file is empty")
    return template


def answer_schema(candidates: int) -> dict[str, Any]:
    """The JSON schema of an answer, for servers that hold a model to one."""
    text = {"type": "string", "minLength": 1}
    entry = {"text": text, "kind": {"type": "string", "enum": list(KINDS)}}
    item = {"type": "object", "properties": entry, "required": list(entry), "additionalProperties": False}
    listed = {"type": "array", "items": item, "minItems": 1, "maxItems": candidates}
    return {
        "type": "object",
        "properties": {"expressions": listed},
        "required": ["expressions"],
        "additionalProperties": False,
    }
