"""What a server can do, found out by asking it and looking at the answer: servers ignore parameters that they do not know.

Every question has an answer that a server without the ability would hardly give by chance.
"""

from __future__ import annotations

import io
import json
import logging
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from pseudoris_cli.endpoint import decisions
from pseudoris_cli.endpoint.asking import CHAT, user_message
from pseudoris_cli.endpoint.client import Client, message_of
from pseudoris_cli.endpoint.failures import RequestFailed
from pseudoris_cli.errors import UsageError
from pseudoris_cli.text import nearest

log = logging.getLogger("pseudoris")
SchemaForm = Literal["json_schema", "structured_outputs"]
ListenerMode = Literal["systemone", "logprobs", "vote"]
FEW_ALTERNATIVES = 5
"""With fewer, probabilities of tokens say too little of the options that are not among them."""
_CODES = ("q7-zebra", "w2-heron")
_SCHEMA = {
    "type": "object",
    "properties": {"code": {"type": "string", "enum": [_CODES[0]]}},
    "required": ["code"],
    "additionalProperties": False,
}
_GREETING = "Write one word that greets a person. Write nothing else."
_FEW = 60


class _Png(NamedTuple):
    data: bytes
    media_type: str = "image/png"


@dataclass(frozen=True)
class ChatForm:
    """How a server wants a chat request."""

    model: str
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    takes_seed: bool = True
    takes_temperature: bool = True

    def body(self, messages: list[dict[str, Any]], max_tokens: int, **sampling: Any) -> dict[str, Any]:
        """A request; of `sampling` only what is not None and what the server takes."""
        if not self.takes_seed:
            sampling.pop("seed", None)
        if not self.takes_temperature:
            sampling = {name: value for name, value in sampling.items() if name not in ("temperature", "top_p")}
        given = {name: value for name, value in sampling.items() if value is not None}
        return {"model": self.model, "messages": messages, self.token_limit: max_tokens, **given}


async def listed_models(client: Client, retries: int | None = None) -> list[str] | None:
    """The models that the server lists; None if it has no such list."""
    try:
        value = await client.get("/models", retries)
    except RequestFailed as failure:
        if failure.status in (404, 405, 501):
            return None
        raise client_stop(client, failure, "list its models") from None
    rows = value.get("data") if isinstance(value, dict) else None
    names = [row.get("id") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else None
    if names is None:
        raise UsageError(
            f"{client.address.url}/models gives no list of models; is it the address of an OpenAI-compatible server (.../v1)?"
        )
    return [name for name in names if isinstance(name, str)]


def client_stop(client: Client, failure: RequestFailed, what: str) -> UsageError:
    """A server that cannot do what nothing goes without."""
    return UsageError(
        f"{client.address.url} does not {what} ({failure.reason}); is it the address of an OpenAI-compatible server (.../v1)?"
    )


def choose_model(wanted: str | None, listed: list[str] | None, client: Client) -> str:
    """The model to ask: the one wanted, else the only one that the server lists. UsageError (exit 2) if that is not one."""
    setting = f"{client.address.section}.model"
    if wanted:
        return wanted
    if listed is None:
        raise UsageError(f"{client.address.url} does not list its models; name one with --set {setting}=NAME")
    if len(listed) != 1:
        what = f"lists {len(listed)} models ({', '.join(listed[:8])})" if listed else "lists no model"
        raise UsageError(f"{client.address.url} {what}; name one with --set {setting}=NAME")
    return listed[0]


async def chat_form(client: Client, model: str, listed: list[str] | None) -> ChatForm:
    """How the server takes a plain request to the model.

    UsageError (exit 2) if it does not have the model, or no chat at all.
    """
    form = ChatForm(model)
    for _ in range(4):
        body = form.body([user_message((), _GREETING)], 4, temperature=0.5, seed=1)
        try:
            message_of(await client.post(CHAT, body))
            return form
        except RequestFailed as failure:
            said = failure.reason.lower()
            if failure.status in (400, 422) and "max_completion_tokens" in said and form.token_limit == "max_tokens":
                form = replace(form, token_limit="max_completion_tokens")
            elif failure.status in (400, 422) and "temperature" in said and form.takes_temperature:
                form = replace(form, takes_temperature=False)
            elif failure.status in (400, 422) and "seed" in said and form.takes_seed:
                form = replace(form, takes_seed=False)
            else:
                raise _no_chat(client, model, listed, failure) from None
    raise AssertionError("unreachable")


def _no_chat(client: Client, model: str, listed: list[str] | None, failure: RequestFailed) -> UsageError:
    url = client.address.url
    if listed and model not in listed:
        names = ", ".join(listed[:8])
        return UsageError(f"{url} has no model {model!r} ({failure.reason}); it lists {names}{nearest(model, listed)}")
    if failure.status == 404 and listed is None:
        return UsageError(
            f"{url} has no chat ({failure.reason}); does the address end where /chat/completions begins (.../v1)?"
        )
    return UsageError(f"{url} does not answer for the model {model!r} ({failure.reason}); look at the server's log")


async def seeing_chat(client: Client, wanted: str | None) -> ChatForm:
    """How a server that is to be shown pictures takes a chat request to the model wanted, else to its only one.

    UsageError (exit 2) if there is no such model, or it sees no pictures; a warning where that cannot be told.
    """
    listed = await listed_models(client, retries=1)
    form = await chat_form(client, choose_model(wanted, listed, client), listed)
    sees = await sees_pictures(client, form)
    if sees is False:
        raise UsageError(
            f"{client.address.url}: the model {form.model!r} does not see pictures (a picture cost no tokens, or was refused); "
            "serve a vision-language model"
        )
    if sees is None:
        log.warning("%s counts no tokens: whether %s sees the pictures cannot be told", client.address.url, form.model)
    return form


async def sees_pictures(client: Client, form: ChatForm) -> bool | None:
    """Whether pictures reach the model: they must cost tokens. None if the server counts none, so that nothing is known.

    A server may take pictures for a model without eyes, answer, and say nothing.
    """
    counts = []
    for pictures in ((noise_picture(),), ()):
        try:
            body = form.body([user_message(pictures, _GREETING)], 1, temperature=0.0, seed=1)
            counts.append(message_of(await client.post(CHAT, body))["tokens_in"])
        except RequestFailed as failure:
            if failure.again or not pictures:
                raise client_stop(client, failure, "answer a request with a picture") from None
            return False
    if counts[0] is None or counts[1] is None:
        return None
    return counts[0] > counts[1]


async def schema_form(client: Client, form: ChatForm) -> SchemaForm | None:
    """How the server holds an answer to a JSON schema; None if it does not."""
    for name in ("json_schema", "structured_outputs"):
        with_schema = constrained(name, _SCHEMA)
        text = await _text(
            client, form.body([user_message((), _GREETING)], _FEW, temperature=0.0, seed=1) | with_schema
        )
        try:
            if text is not None and json.loads(text) == {"code": _CODES[0]}:
                return name
        except ValueError:
            pass
    return None


def constrained(form: SchemaForm, schema: dict[str, Any], name: str = "answer") -> dict[str, Any]:
    """The fields of a request that hold its answer to a JSON schema."""
    if form == "structured_outputs":
        return {"structured_outputs": {"json": schema}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}}


async def takes_choice(client: Client, form: ChatForm) -> bool:
    """Whether the server holds an answer to one of several texts (vLLM's `structured_outputs.choice`)."""
    fields = {"structured_outputs": {"choice": list(_CODES)}}
    text = await _text(client, form.body([user_message((), _GREETING)], _FEW, temperature=0.0, seed=1) | fields)
    return text in _CODES


async def top_logprobs(client: Client, form: ChatForm, most: int = 20) -> int:
    """How many alternatives the server gives probabilities of for a generated token, at most `most`; 0 if it gives none."""
    for count in sorted({most, 5}, reverse=True):
        body = form.body([user_message((), _GREETING)], 1, temperature=0.0, seed=1) | {
            "logprobs": True,
            "top_logprobs": count,
        }
        try:
            found = message_of(await client.post(CHAT, body))["logprobs"]
            rows = found["content"][0]["top_logprobs"]
            values = [row["logprob"] for row in rows if isinstance(row["token"], str)]
        except (RequestFailed, KeyError, IndexError, TypeError):
            continue
        if len(values) > 1 and all(
            isinstance(value, int | float) and math.isfinite(value) and value <= 1e-3 for value in values
        ):
            return len(values)
    return 0


def listener_mode(decision: decisions.Form | None, alternatives: int) -> ListenerMode:
    """How a listener asks a server that takes decisions in this form, and tells so many alternatives of a token."""
    return "systemone" if decision else "logprobs" if alternatives >= FEW_ALTERNATIVES else "vote"


async def decision_form(client: Client, model: str) -> decisions.Form | None:
    """How the server takes a picture with a decision at /systemone; None if it does not, or the picture does not reach it."""
    return await decisions.find_form(client, model, noise_picture(), striped_picture())


async def _text(client: Client, body: dict[str, Any]) -> str | None:
    """The answer's text; None where the server refuses the request, as it may for a field that it does not know."""
    try:
        return str(message_of(await client.post(CHAT, body))["text"]).strip()
    except RequestFailed:
        return None


def noise_picture(side: int = 64) -> _Png:
    """A picture of noise, always the same."""
    import numpy as np

    return _png(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def striped_picture(side: int = 64) -> _Png:
    """Red and white stripes."""
    import numpy as np

    pixels = np.full((side, side, 3), 255, np.uint8)
    pixels[:, np.arange(side) // 8 % 2 == 0] = (220, 20, 20)
    return _png(pixels)


def _png(pixels: Any) -> _Png:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return _Png(file.getvalue())
