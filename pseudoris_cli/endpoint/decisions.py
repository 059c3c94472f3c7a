"""System One decisions, POST /systemone: a probability for every option of every question about a picture, no text generated.

Servers differ in where the picture goes (`Form`): transformers and TypeSafe take `assets`, whose name stands in the state for
the picture; SGLang takes a list `images` that comes before the text, of addresses or of objects with a `url`. Some ignore fields
that they do not know.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, Literal

from pseudoris_cli.endpoint.asking import Encoded, data_url
from pseudoris_cli.endpoint.client import Client
from pseudoris_cli.endpoint.failures import RequestFailed

PATH = "/systemone"
Form = Literal["assets", "images", "image_urls"]
FORMS: tuple[Form, ...] = ("assets", "images", "image_urls")
_PICTURE = "<the picture>"
_QUESTION = {
    "type": "choice",
    "instructions": "What is shown?",
    "criteria": {"1": "stripes", "2": "noise", "none": "neither"},
}


def decision_body(
    form: Form, model: str, picture: Encoded, state: str, questions: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """A request about one picture; the picture comes first in what the model reads, then `state`, then each question."""
    if form != "assets":
        image = data_url(picture) if form == "images" else {"url": data_url(picture)}
        return {"model": model, "images": [image], "state": state, "questions": dict(questions)}
    asset = {
        "type": "image",
        "format": picture.media_type.partition("/")[2],
        "data_base64": base64.b64encode(picture.data).decode("ascii"),
    }
    return {
        "model": model,
        "assets": {_PICTURE: asset},
        "state": f"{_PICTURE}\n{state.replace(_PICTURE, '')}",
        "questions": dict(questions),
    }


def decisions_of(value: Any) -> dict[str, Any]:
    """Of an answer: {"answers": {question: {option: probability}}, "tokens_in", "tokens_out"}; of yes or no, true and false.

    RequestFailed if the value is no answer, or a question has no probabilities.
    """
    try:
        answers = {name: _probabilities(answer) for name, answer in value["answers"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RequestFailed("the answer holds no decisions with probabilities", again=False, status=200) from None
    usage = value.get("usage") or {}
    tokens = [
        next((usage[name] for name in names if isinstance(usage.get(name), int)), None)
        for names in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
    ]
    return {"answers": answers, "tokens_in": tokens[0], "tokens_out": tokens[1]}


def _probabilities(answer: dict[str, Any]) -> dict[str, float]:
    if answer.get("type") == "noul" or "noul" in answer:
        true = float(answer["noul"])
        found = {"true": true, "false": 1 - true}
    else:
        found = {str(option): float(chance) for option, chance in answer["probabilities"].items()}
    if not all(math.isfinite(chance) and -1e-6 <= chance <= 1 + 1e-6 for chance in found.values()):
        raise ValueError
    if abs(sum(found.values()) - 1) > 0.02:
        raise ValueError
    return found


async def find_form(client: Client, model: str, noise: Encoded, stripes: Encoded) -> Form | None:
    """How the server takes a picture with a decision; None if it takes none.

    A server may take the fields and not show the picture to the model. So two pictures must give other probabilities, by far
    more than the same picture does twice.
    """
    for form in FORMS:
        first = await _decide(client, model, form, noise)
        again = await _decide(client, model, form, noise) if first else None
        other = await _decide(client, model, form, stripes) if again else None
        if first and again and other:
            unrest = max(abs(first[option] - again[option]) for option in first)
            if max(abs(first[option] - other[option]) for option in first) > 4 * unrest + 1e-5:
                return form
    return None


async def _decide(client: Client, model: str, form: Form, picture: Encoded) -> dict[str, float] | None:
    body = decision_body(form, model, picture, "This is a picture.", {"shown": _QUESTION})
    try:
        found: dict[str, float] = decisions_of(await client.post(PATH, body, retries=0))["answers"]["shown"]
    except (RequestFailed, KeyError):
        return None
    return found if set(found) == set(_QUESTION["criteria"]) else None
