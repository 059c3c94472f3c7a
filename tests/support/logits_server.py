"""A small OpenAI-compatible server that returns a model's real logits: what `transformers serve` does not offer.

`python logits_server.py FOLDER --host 127.0.0.1 --port N`. It answers with log-probabilities (`logprobs`, `top_logprobs`), and
holds answers to a JSON schema (`response_format`, `structured_outputs.json`) or to one of several texts
(`structured_outputs.choice`): at each step the likeliest token goes that leaves a beginning of an allowed answer.
Decoding is greedy, or by `temperature` and `seed`.
"""

from __future__ import annotations

import argparse
import base64
import io
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

Allowed = Callable[[str], bool | None]
"""Of a text so far: True if it is complete, None if it can go on to be, False if neither."""


class Brain:
    """The model, one request at a time."""

    def __init__(self, folder: str) -> None:
        self.model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.lock = Lock()

    @torch.inference_mode()
    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Generate token by token, from the whole text anew: the model is tiny."""
        tokenizer = self.processor.tokenizer
        inputs = self.processor.apply_chat_template(
            _messages(body["messages"]),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        allowed, logprobs, chosen = _constraint(body), [], []
        random = torch.Generator().manual_seed(int(body.get("seed") or 0))
        asked, finish = inputs["input_ids"].shape[1], "length"
        for _ in range(int(body.get("max_tokens") or 64)):
            scores = self.model(**inputs).logits[0, -1].float()
            token = self._next(scores, chosen, allowed, float(body.get("temperature") or 0), random)
            if token is None or token == tokenizer.eos_token_id:
                finish = "stop"
                break
            chosen.append(token)
            logprobs.append(self._logprobs(scores, token, int(body.get("top_logprobs") or 0)))
            more = torch.tensor([[token]])
            inputs["input_ids"] = torch.cat([inputs["input_ids"], more], 1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if "mm_token_type_ids" in inputs:
                inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(more)], 1)
            if allowed and allowed(tokenizer.decode(chosen)):
                finish = "stop"
                break
        message = {"role": "assistant", "content": tokenizer.decode(chosen)}
        choice = {"index": 0, "message": message, "finish_reason": finish}
        if body.get("logprobs"):
            choice["logprobs"] = {"content": logprobs}
        usage = {"prompt_tokens": asked, "completion_tokens": len(chosen), "total_tokens": asked + len(chosen)}
        return {"object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}

    def _next(
        self,
        scores: torch.Tensor,
        chosen: list[int],
        allowed: Allowed | None,
        temperature: float,
        random: torch.Generator,
    ) -> int | None:
        """The next token; None where nothing allowed can follow."""
        tokenizer = self.processor.tokenizer
        if temperature > 0:
            noise = -torch.log(-torch.log(torch.rand(scores.shape, generator=random)))
            scores = scores / temperature + noise
        for token in scores.argsort(descending=True).tolist():
            if allowed is None:
                return token
            if token in tokenizer.all_special_ids:
                continue
            text = tokenizer.decode([*chosen, token])
            if "\ufffd" not in text and allowed(text) is not False:
                return token
        return None

    def _logprobs(self, scores: torch.Tensor, token: int, count: int) -> dict[str, Any]:
        values = scores.log_softmax(0)
        entry = {"token": self.processor.tokenizer.decode([token]), "logprob": float(values[token])}
        best = values.topk(count) if count else None
        rows = zip(best.values.tolist(), best.indices.tolist(), strict=True) if best else ()
        top = [{"token": self.processor.tokenizer.decode([index]), "logprob": value} for value, index in rows]
        return entry | {"top_logprobs": top}


def _messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """OpenAI's messages as the processor takes them."""
    found = []
    for message in messages:
        parts = (
            message["content"]
            if isinstance(message["content"], list)
            else [{"type": "text", "text": message["content"]}]
        )
        content = []
        for part in parts:
            if part["type"] == "text":
                content.append(part)
            else:
                data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
                content.append({"type": "image", "image": Image.open(io.BytesIO(data)).convert("RGB")})
        found.append({"role": message["role"], "content": content})
    return found


def _constraint(body: dict[str, Any]) -> Allowed | None:
    structured = body.get("structured_outputs") or {}
    if "choice" in structured:
        choices = structured["choice"]
        return lambda text: True if text in choices else (None if any(c.startswith(text) for c in choices) else False)
    schema = structured.get("json") or ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    return (lambda text: json_beginning(text, schema)) if schema else None


def json_beginning(text: str, schema: dict[str, Any]) -> bool | None:
    """Whether a text is a JSON value of a schema (True), the beginning of one (None), or neither (False).

    Of JSON schema: objects whose properties are all required and come in order, arrays with minItems and maxItems, strings
    with enum and minLength. Written as json.dumps writes, strings of printable ASCII without escapes and at most 40 long.
    """
    rest = _read(text, schema)
    return rest if rest is None or rest is False else (rest == "")


def _literal(text: str, wanted: str) -> str | bool | None:
    if text.startswith(wanted):
        return text[len(wanted) :]
    return None if wanted.startswith(text) else False


def _read(text: str, schema: dict[str, Any]) -> str | bool | None:
    """What is left after a value of the schema; None where the text ends within it, False where it does not fit."""
    if schema["type"] == "string":
        return _read_string(text, schema)
    rest: str | bool | None = text
    if schema["type"] == "object":
        steps: list[Any] = []
        for number, (name, of) in enumerate(schema["properties"].items()):
            steps += [f'{", " if number else "{"}"{name}": ', of]
        for step in [*steps, "}"]:
            rest = _literal(rest, step) if isinstance(step, str) else _read(rest, step)
            if not isinstance(rest, str):
                return rest
        return rest
    rest, count = _literal(text, "["), 0
    while isinstance(rest, str):
        if count >= schema.get("minItems", 0) and rest.startswith("]"):
            return rest[1:]
        if count >= schema["maxItems"]:
            return _literal(rest, "]")
        rest = _literal(rest, ", ") if count else rest
        if isinstance(rest, str):
            rest, count = _read(rest, schema["items"]), count + 1
    return rest


def _read_string(text: str, schema: dict[str, Any]) -> str | bool | None:
    if "enum" in schema:
        answers = [_literal(text, f'"{value}"') for value in schema["enum"]]
        complete = next((answer for answer in answers if isinstance(answer, str)), None)
        return complete if complete is not None else (None if None in answers else False)
    if not text:
        return None
    if text[0] != '"':
        return False
    body, quote, rest = text[1:].partition('"')
    if not all(" " <= c <= "~" and c != "\\" for c in body) or len(body) > 40:
        return False
    if not quote:
        return None
    return rest if len(body.strip()) >= schema.get("minLength", 0) else False


def app(brain: Brain, name: str) -> FastAPI:
    """The routes."""
    made = FastAPI()

    @made.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @made.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model"}]}

    @made.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> JSONResponse:
        if body.get("model") != name:
            return JSONResponse({"error": {"message": f"The model `{body.get('model')}` does not exist."}}, 404)
        with brain.lock:
            return JSONResponse(brain.answer(body))

    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--name", default="tiny-logits")
    given = parser.parse_args()
    torch.set_num_threads(1)
    uvicorn.run(app(Brain(given.folder), given.name), host=given.host, port=given.port, log_level="warning")
